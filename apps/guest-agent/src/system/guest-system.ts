/** The two ends' ports of one connection. */
export interface ConnectionPorts {
  readonly localPort: number
  readonly remotePort: number
}

/** What `/init` and `/quiesce` do to the machine itself. A development machine gets an implementation that only takes note. */
export interface GuestSystem {
  /** Sets the clock so that `timestampNs` was the time when the call began. @returns what is still wrong afterwards, in ms */
  setClock(timestampNs: bigint): Promise<number>
  setHostname(hostname: string): void
  setMachineId(machineId: string): void
  /** Mixes bytes into the kernel's random pool. */
  addEntropy(bytes: Uint8Array): void
  /** Ends every TCP connection with another machine but `kept`; listening sockets and those inside the guest stay. */
  dropConnections(kept: ConnectionPorts): Promise<void>
  /** Writes everything that belongs on the data file system to its disk. */
  sync(): Promise<void>
  /** Gives the memory of clean cached file pages back. */
  dropCaches(): Promise<void>
}

/** How far the clock is from what it should be, `elapsedMs` after it should have been `timestampNs`. */
export function clockError(timestampNs: bigint, elapsedMs: number): number {
  return Date.now() - (Number(timestampNs / 1_000n) / 1000 + elapsedMs)
}
