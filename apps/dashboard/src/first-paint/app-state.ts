/** In the place of `$app/state`. */
export const page = { url: new URL(location.href) }
