export { hardwareOf, layersOfStates, type StateManifest } from './states.js'
