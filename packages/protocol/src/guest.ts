export * from './gen/filesystem/filesystem_pb.js'
export {
  type ConnectRequest,
  type ConnectResponse,
  Process,
  type ProcessConfig,
  type ProcessEvent,
  ProcessEventSchema,
  type ProcessInfo,
  ProcessInfoSchema,
  type ProcessInput,
  type ProcessSelector,
  Signal,
  type StartRequest,
  StartRequestSchema,
  type StartResponse,
  StartResponseSchema,
} from './gen/process/process_pb.js'
