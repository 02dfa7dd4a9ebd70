import type { HostClient } from './host-client.js'

export interface ConnectedHost extends AsyncDisposable {
  readonly client: HostClient
  /** Names of files and directories on the host that belong to a capsule. */
  readonly namesOf: (capsuleId: string) => Promise<readonly string[]>
  /** Lets a capsule's guest end as by itself; the host may notice it a moment later. */
  readonly endGuest: (capsuleId: string) => Promise<void>
}

export interface HostServiceAdapter {
  /** Name of the implementation, for the titles. */
  readonly name: string
  /** A client of a host that is ready; disposing may stop it. */
  readonly connect: () => Promise<ConnectedHost>
  /** Whether capsules are machines of their own, with kernel, clock, names and entropy; else why not. */
  readonly guest: 'machine' | { readonly instead: string }
  /** How long one step may take. @default 60 000 */
  readonly timeoutMs?: number
}
