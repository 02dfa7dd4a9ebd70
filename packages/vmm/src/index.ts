export type * from './engine.js'
export {
  createFakeEngine,
  FakeEngine,
  type FakeEngineOptions,
  FakeMachine,
  FakeVmGuest,
} from './fake/fake-engine.js'
export type { Accelerator } from './qemu/command-line.js'
export { createQemuEngine, type QemuEngineOptions } from './qemu/engine.js'
