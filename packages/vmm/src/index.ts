export type * from './engine.js'
export { createQemuEngine, type QemuEngineOptions } from './qemu/engine.js'
