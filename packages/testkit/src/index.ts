export { describeEngine, type EngineAdapter } from './conformance/engine.js'
export { FakeGuest } from './fake-guest.js'
export { FakeHost } from './fake-host/fake-host.js'
export { startTestPostgres, type TestPostgres, type TestPostgresKind, testPostgresKinds } from './test-postgres.js'
