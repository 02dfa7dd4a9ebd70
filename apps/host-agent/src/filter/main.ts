import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { rootCertificates } from 'node:tls'
import { errorText } from '@wrenn/base'
import { createControlServer } from './control-server.js'
import { Filter } from './filter.js'
import { askServer, NameResolver } from './resolver.js'

/** The transparent listening socket that it is started with. */
const LISTENER = 3
/** What the host trusts beside what Node.js does: where a company's own authorities are. */
const HOST_CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt'
const USAGE = 'egress filter: <control socket> <name server> <uid> <version> [certificates]'

/** Gives up root for good, with all its groups. Nothing was read from anybody before. */
function becomeUser(uid: number): void {
  process.setgroups?.([])
  process.setgid?.(uid)
  process.setuid?.(uid)
}

async function main([socketPath, nameServer, uid, version, caPath = '']: readonly string[]): Promise<void> {
  if (socketPath === undefined || nameServer === undefined || uid === undefined || version === undefined) {
    throw new Error(USAGE)
  }
  const onFailure = (error: unknown): void => void process.stderr.write(`${errorText(error)}\n`)
  const ca = [...rootCertificates, await hostCertificates(), ...(caPath === '' ? [] : [await readFile(caPath, 'utf8')])]
  const filter = new Filter({ resolver: new NameResolver(askServer(nameServer)), version, ca, onFailure })
  const control = createControlServer((ask) => {
    if (ask.op === 'end') process.exit(0)
    return filter.answer(ask)
  })
  const guests = createServer({ allowHalfOpen: true }, (socket: Socket) => filter.accept(socket))
  control.listen(socketPath)
  await once(control, 'listening')
  becomeUser(Number(uid))
  guests.listen({ fd: LISTENER })
  await once(guests, 'listening')
}

async function hostCertificates(): Promise<string> {
  return await readFile(HOST_CERTIFICATES, 'utf8').catch(() => '') // a host without the package
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`egress filter: ${errorText(error)}\n`)
  process.exit(1)
})
