export { type AgentInputs, readNodeChoice } from './agent-drive.js'
export {
  type BaseImage,
  type BuildOptions,
  buildImage,
  ensureImage,
  listImages,
  offeredImages,
  type RemoveOptions,
  removeImage,
} from './base-image.js'
export { blankDisk } from './blank-disk.js'
export { type BootAssets, type BootOptions, ensureBootAssets, kernelArgs } from './boot-assets.js'
export { readKernelChoice } from './kernel.js'
export type { KernelChoice } from './kernel-choice.js'
export { pruneLayers, type VerifyResult, verifyImages } from './maintenance.js'
export { type FetchedImage, FetchedImages, type ImageUses, isFetchedName } from './oci/fetched-images.js'
export { RegistryRules } from './oci/rules.js'
export type { ImageStoreOptions, Progress } from './progress.js'
export { LayerStore } from './store.js'
