import { clockError, type GuestSystem } from './guest-system.js'

/** For an agent on a machine that is not its guest: takes note of what it was told and changes nothing. */
export class DevelopmentSystem implements GuestSystem {
  hostname: string | undefined
  machineId: string | undefined
  entropyBytes = 0

  async setClock(timestampNs: bigint): Promise<number> {
    return clockError(timestampNs, 0)
  }

  setHostname(hostname: string): void {
    this.hostname = hostname
  }

  setMachineId(machineId: string): void {
    this.machineId = machineId
  }

  addEntropy(bytes: Uint8Array): void {
    this.entropyBytes += bytes.length
  }
}
