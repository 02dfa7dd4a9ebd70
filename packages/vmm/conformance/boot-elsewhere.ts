/** Boots the guest of the spec given as JSON, prints its record and stays until it is killed: a host agent about to crash. */
import { createQemuEngine } from '../src/qemu/engine.js'

const spec = JSON.parse(process.argv[2] ?? '')
const vm = await createQemuEngine({ accelerator: 'tcg' }).boot(spec)
process.stdout.write(`${JSON.stringify(vm.record)}\n`)
