export { createBuilds } from './create-builds.js'
export type { SubmittedPlan, TemplateBuilds } from './template-builds.js'
export { MAX_TAGS, TemplateTags } from './template-tags.js'
export type { UploadTicket } from './upload-links.js'
