export { endLeftServer } from './owner.js'
export {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  type ServerExit,
  startEmbeddedPostgres,
} from './server.js'
