export { endLeftServer } from './owner.js'
export {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  embeddedDatabaseUrl,
  type ServerExit,
  startEmbeddedPostgres,
} from './server.js'
