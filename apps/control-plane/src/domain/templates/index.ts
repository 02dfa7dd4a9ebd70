export { createBuilds } from './create-builds.js'
export type { TemplateBuilds } from './template-builds.js'
export type { UploadTicket } from './upload-links.js'
