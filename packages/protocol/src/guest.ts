import './text-encoding.js'

export { isClientPath, isClientRoute } from './client-routes.js'
export * from './gen/filesystem/filesystem_pb.js'
export * from './gen/process/process_pb.js'
