// `npm start [-- options of wrenn up]`: from a fresh checkout to a running platform.
import { prepare, runWrenn } from './prepare.mjs'

prepare()
runWrenn(['up', ...process.argv.slice(2)])
