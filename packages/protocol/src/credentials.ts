/** Before every access token of a session; keys never begin like it. */
export const ACCESS_TOKEN_PREFIX = 'wra_'
/** Before every refresh token. */
export const REFRESH_TOKEN_PREFIX = 'wrr_'

/** A page that sends cookies sets it; pages from elsewhere cannot. */
export const CSRF_HEADER = 'x-wrenn-csrf'

/** Where a program puts the token of a private capsule; browsers come with it in the query once, and have a cookie then. */
export const PORT_TOKEN_HEADER = 'x-wrenn-port-token'
export const PORT_TOKEN_QUERY = 'wrenn_port_token'

/** The secret of a webhook: `whsec_` and base64 of 24 to 64 bytes, as Standard Webhooks have it. */
export const WEBHOOK_SECRET_PREFIX = 'whsec_'
