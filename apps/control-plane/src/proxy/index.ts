export { PortProxy } from './proxy.js'
