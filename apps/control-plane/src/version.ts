/** Of this control plane, for `GET /health` and the document. */
export const VERSION = '0.1.0'
