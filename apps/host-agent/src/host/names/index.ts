export { NamesPolicy, type NameVerdict } from './names-policy.js'
export { type Refusal, type RefusalReason, Refusals } from './refusals.js'
