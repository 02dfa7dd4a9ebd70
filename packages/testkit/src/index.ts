export { describeEngine, type EngineAdapter } from './conformance/engine.js'
export { FakeGuest } from './fake-guest.js'
