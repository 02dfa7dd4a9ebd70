import './text-encoding.js'

export * from './gen/wrenn/host/v1/host_pb.js'
