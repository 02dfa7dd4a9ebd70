/** Everything is rendered in the browser: the server has one shell. */
export const ssr = false
export const prerender = false
