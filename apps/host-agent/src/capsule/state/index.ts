export { type Durable, hardwareOf, layersOfStates, type StateManifest, type StateStore } from './states.js'
