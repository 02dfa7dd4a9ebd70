import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const CHROMIUM = '/usr/bin/chromium'
/** Why tests of pages are left out; empty where they are not. */
export const noBrowser = existsSync(CHROMIUM) ? '' : `(left out: this machine has no ${CHROMIUM})`

/** Runs in the browser's network: leads connections to a port of its loopback to the socket of that number. */
const RELAY = `
import { connect, createServer } from 'node:net'
import { writeFileSync } from 'node:fs'
const [dir, ...ports] = process.argv.slice(2)
const listening = ports.map((port) => new Promise((resolve) => {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const onward = connect({ path: dir + '/' + port, allowHalfOpen: true })
    client.on('error', () => onward.destroy()).on('close', () => onward.destroy())
    onward.on('error', () => client.destroy()).on('close', () => client.destroy())
    client.pipe(onward).pipe(client)
  })
  server.listen(Number(port), '127.0.0.1', resolve)
}))
await Promise.all(listening)
writeFileSync(dir + '/ready', '')
`

const wrapper = (dir: string, ports: readonly number[]): string => `#!/bin/sh
exec unshare --net sh -c '
ip link set lo up
setpriv --pdeathsig KILL ${process.execPath} ${dir}/relay.mjs ${dir} ${ports.join(' ')} </dev/null >/dev/null 2>&1 &
while ! [ -e ${dir}/ready ]; do sleep 0.05; done
exec ${CHROMIUM} "$@"' sh "$@"
`

/**
 * Debian's Chromium, which asks nothing of anybody by itself, in a network of its own: it gives up whatever it loads when a network of its
 * machine comes or goes, as those of capsules do all the time. Of this machine it reaches `ports` of the loopback.
 */
export async function launchBrowser(ports: readonly number[]): Promise<Browser> {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-browser-'))
  const relays = await Promise.all(ports.map((port) => lead(join(dir, String(port)), port)))
  const program = join(dir, 'chromium')
  await writeFile(join(dir, 'relay.mjs'), RELAY)
  await writeFile(program, wrapper(dir, ports))
  await chmod(program, 0o755)
  const browser = await chromium.launch({
    executablePath: program,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  })
  browser.once('disconnected', () => {
    for (const relay of relays) relay.close()
    void rm(dir, { recursive: true, force: true })
  })
  return browser
}

/** Leads connections to a socket on to a port of this machine. */
async function lead(path: string, port: number): Promise<Server> {
  const relay = createServer({ allowHalfOpen: true }, (client) => {
    const onward = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    client.on('error', () => onward.destroy()).on('close', () => onward.destroy())
    onward.on('error', () => client.destroy()).on('close', () => client.destroy())
    client.pipe(onward).pipe(client)
  })
  await new Promise<void>((resolve) => relay.listen(path, resolve))
  return relay
}
