export { sendFailure as refuseRequest } from './answers.js'
export { PortProxy } from './proxy.js'
export { Routes } from './routes.js'
export { refuseUpgrade } from './upgrade.js'
