import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { issueHostCertificate } from '@wrenn/certificates'
import type { Platform } from './platform.js'

const run = promisify(execFile)

/** A public address that is nobody's, which the name server of tests gives for names below `.wrenn.test`. */
const ADDRESS = '192.0.2.1'
const HOST_ADDRESS = '192.0.2.2'
const NAME = 'wtest-site'

/** Answers nothing of what it was asked: what it was asked with is for the test alone. */
const PROGRAM = `
const [cert, key, log] = process.argv.slice(1)
const { appendFileSync, readFileSync } = require('node:fs')
require('node:https').createServer({ cert: readFileSync(cert), key: readFileSync(key) }, ({ url, headers }, response) => {
  appendFileSync(log, JSON.stringify({ url, headers }) + '\\n')
  response.end('hello')
}).listen(443, '0.0.0.0', () => console.log('ready'))`

export interface Site extends AsyncDisposable {
  /** Headers that it was asked with at a path, the newest. */
  asked(path: string): Promise<Readonly<Record<string, string>> | undefined>
}

/** An HTTPS server for a host, by the authority that the suite's platform trusts beside the public ones, on a machine of its own. */
export async function startSite({ world }: Platform, host: string): Promise<Site> {
  if (world === undefined) throw new Error('The suite has an authority for sites.')
  await removeSite()
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-site-'))
  const [certFile, keyFile, log] = [join(dir, 'cert.pem'), join(dir, 'key.pem'), join(dir, 'asked')] as const
  const { cert, key } = await issueHostCertificate(world, host)
  await writeFile(certFile, cert)
  await writeFile(keyFile, key)
  await writeFile(log, '')
  const ip = async (...args: readonly string[]): Promise<unknown> => await run('ip', args)
  await ip('netns', 'add', NAME)
  await ip('link', 'add', NAME, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', NAME)
  await ip('addr', 'add', `${HOST_ADDRESS}/30`, 'dev', NAME)
  await ip('link', 'set', NAME, 'up')
  await ip('-n', NAME, 'addr', 'add', `${ADDRESS}/30`, 'dev', 'eth0')
  await ip('-n', NAME, 'link', 'set', 'eth0', 'up')
  await ip('-n', NAME, 'route', 'add', 'default', 'via', HOST_ADDRESS)
  const command = [`--net=/run/netns/${NAME}`, process.execPath, '-e', PROGRAM, certFile, keyFile, log]
  const server = spawn('nsenter', command, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout, 'data')
  return {
    async asked(path) {
      const lines = (await readFile(log, 'utf8')).split('\n').filter((line) => line !== '')
      return lines.map((line) => JSON.parse(line)).findLast(({ url }) => url === path)?.headers
    },
    async [Symbol.asyncDispose]() {
      const ended = once(server, 'exit')
      server.kill('SIGKILL')
      await ended
      await removeSite()
      await rm(dir, { recursive: true })
    },
  }
}

/** Of an interrupted run, too. */
async function removeSite(): Promise<void> {
  await run('ip', ['link', 'del', NAME]).catch(() => {}) // it is not there
  await run('ip', ['netns', 'del', NAME]).catch(() => {})
}
