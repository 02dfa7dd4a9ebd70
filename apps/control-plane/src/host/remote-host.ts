import { connect as connectSocket, type Socket } from 'node:net'
import { connect as connectTls, type SecureContext } from 'node:tls'
import type { AppError } from '@wrenn/base'
import { parseHostAddress } from '@wrenn/protocol'
import { NotConnected, notSent } from './errors.js'

/** To an agreed key. A machine that vanishes meanwhile would be waited for without end, and every call with it. */
const CONNECT_WITHIN_MS = 10_000
/** After so much silence the kernel asks whether the other machine is still there: a tunnel asks nothing itself. */
const KEEP_ALIVE_MS = 30_000

/** A host that is called by mutual TLS, and by what it is known. */
export interface HostTarget {
  /** `name:port`. */
  readonly address: string
  /** What its certificate is for. Another host at the address has another. */
  readonly name: string
  /** Another one than before: what was agreed on before is not believed any longer. */
  readonly era: string
  /** Our own certificate, and authorities and lists of what was revoked. */
  readonly context: SecureContext
}

/** Where the host agent is: a fixed address, or that of a machine that has joined, which comes, moves and goes. */
export type HostPlace = string | RemoteHost

/** How the machine that has joined is called now. Connections are opened by it, and are over when that is another machine, or none. */
export class RemoteHost {
  readonly #onChange: (() => void)[] = []
  readonly #open = new Set<Socket>()
  #target: HostTarget | undefined

  /** For records and messages. */
  get address(): string {
    return this.#target === undefined ? 'nowhere' : `https://${this.#target.address}`
  }

  /** Calls go there from now on; those that are open to another end. `undefined`: there is no host. */
  aim(target: HostTarget | undefined): void {
    const before = this.#target
    this.#target = target
    if (before === undefined) return
    // A certificate that is only renewed counts for connections from now on: calls that are under way go on.
    const isSame = before.address === target?.address && before.name === target.name && before.era === target.era
    if (isSame) return
    for (const tell of this.#onChange) tell()
    for (const socket of this.#open) socket.destroy()
  }

  onChange(listener: () => void): void {
    this.#onChange.push(listener)
  }

  /**
   * A connection for one of these protocols (ALPN), which fails as such when there is no host or not this one. With TLS 1.3 a host refuses a caller only after
   * that has counted the connection as made, by ending it: HTTP/2 has to notice, so only others are open by halves.
   */
  connect(protocols: readonly string[]): Socket {
    const target = this.#target
    const at = target && parseHostAddress(target.address)
    if (target === undefined || at === undefined)
      return failing(notSent('The host is not trusted until it joins again.'))
    const socket = connectTls({
      ...{ ...at, servername: target.name, secureContext: target.context },
      ...{ ALPNProtocols: [...protocols], minVersion: 'TLSv1.3', allowHalfOpen: !protocols.includes('h2') },
    })
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    const tooLate = (): void =>
      void socket.destroy(new NotConnected(`no agreed connection within ${CONNECT_WITHIN_MS} ms`))
    const timer = setTimeout(tooLate, CONNECT_WITHIN_MS)
    socket.once('secureConnect', () => clearTimeout(timer))
    this.#open.add(socket)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#open.delete(socket)
    })
    return socket
  }
}

/**
 * Fails while it connects. One that was never on its way would count as connected, and as closed: then Connect asks for another one at once,
 * without end and without a pause.
 */
function failing(error: AppError): Socket {
  return connectSocket({ host: 'nowhere.invalid', port: 1, lookup: (_name, _options, found) => found(error, '') })
}
