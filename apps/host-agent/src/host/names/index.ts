export {
  type Destination,
  Destinations,
  joinLearned,
  type Learned,
  lostLearned,
  nothingLearned,
} from './destinations.js'
export { NamesPolicy, type NameVerdict } from './names-policy.js'
export { type Refusal, type RefusalReason, Refusals } from './refusals.js'
