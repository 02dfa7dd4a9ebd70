/** Teams that one person may own. Each has quotas of its own: somebody with any number of teams would have none. */
export const MAX_OWNED = 10
