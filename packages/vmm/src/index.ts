export type * from './engine.js'
export {
  type CandidateOptions,
  type CandidateVerdict,
  type ChooseEngineOptions,
  chooseEngine,
  defaultCandidates,
  type EngineCandidate,
  type EngineChoice,
  kvmObstacle,
  PROBE_KERNEL_ARG,
  type RecalledEngine,
  recallEngine,
} from './engine-choice.js'
export {
  createFakeEngine,
  FAKE_HARDWARE,
  FakeEngine,
  type FakeEngineOptions,
  FakeMachine,
  FakeVmGuest,
} from './fake/fake-engine.js'
export type { Accelerator } from './qemu/command-line.js'
export { createQemuEngine, DEFAULT_QEMU, type QemuEngineOptions } from './qemu/engine.js'
export { hardwareOfVersion } from './qemu/hardware.js'
export { killRecordedVm } from './qemu/process.js'
