export { PortProxy } from './proxy.js'
export { Routes } from './routes.js'
