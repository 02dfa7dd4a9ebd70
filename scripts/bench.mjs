// `npm run bench [-- --help]`: measures the promises of a platform of its own against floors measured in the same run.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { fail, prepare, root } from './prepare.mjs'

await prepare()
const args = ['--conditions=wrenn-source', '--import', 'tsx', join(root, 'bench/main.ts'), ...process.argv.slice(2)]
const child = spawn(process.execPath, args, { cwd: root, stdio: 'inherit' })
// ^C reaches the child from the terminal itself; a SIGTERM reaches only us.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => child.kill('SIGTERM'))
child.once('error', (error) => fail(error.message))
child.once('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)))
