// `npm run demo [-- --json]`: from a fresh checkout to the output of a command inside a microVM, and away again.
import { prepare, runWrenn } from './prepare.mjs'

prepare()
runWrenn(['demo', ...process.argv.slice(2)])
