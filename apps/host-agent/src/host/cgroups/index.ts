export {
  type AppliedLimits,
  type Cgroup,
  type CgroupLimits,
  type CgroupStats,
  type Cgroups,
  type CgroupsOptions,
  createCgroups,
} from './cgroups.js'
export { type Controller, controllers, findControllers } from './hierarchy.js'
