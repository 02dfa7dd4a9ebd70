/** The two ends' ports of one connection. */
export interface ConnectionPorts {
  readonly localPort: number
  readonly remotePort: number
}

/** What `/init` and `/quiesce` do to the machine itself. A development machine gets an implementation that only takes note. */
export interface GuestSystem {
  /**
   * Sets the clock so that `timestampNs` was the time at `beganNs` of `process.hrtime.bigint()`.
   * @returns what is still wrong afterwards, in ms
   */
  setClock(timestampNs: bigint, beganNs: bigint): Promise<number>
  /**
   * Of the kernel, /etc/hostname and /etc/hosts. The name that it had before is no news: what the capsule's owner made of these
   * files since then stays.
   */
  setHostname(hostname: string): void
  /** What systemd and D-Bus tell machines apart by (machine-id(5)): 32 hexadecimal digits. Otherwise as the host name. */
  setMachineId(machineId: string): void
  /** Mixes bytes into the kernel's random pool; what is read from then on depends on them. */
  addEntropy(bytes: Uint8Array): Promise<void>
  /** Ends every TCP connection with another machine but `kept`; listening sockets and those inside the guest stay. */
  dropConnections(kept: ConnectionPorts): Promise<void>
  /** Writes everything that belongs on the data file system to its disk. */
  sync(): Promise<void>
  /** Makes the line editing of the terminal at `path` count in characters of UTF-8. Best effort: without, it counts bytes. */
  setUtf8Input(path: string): Promise<void>
  /** Gives the memory of clean cached file pages back. */
  dropCaches(): Promise<void>
}

/** How far the clock is from what it should be, when `timestampNs` was the time at `beganNs`. Positive: it is ahead. */
export function clockErrorNs(timestampNs: bigint, beganNs: bigint): number {
  const elapsedNs = process.hrtime.bigint() - beganNs
  return Number(BigInt(Date.now()) * 1_000_000n - timestampNs - elapsedNs)
}
