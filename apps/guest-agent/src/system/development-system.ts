import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type ConnectionPorts, clockErrorNs, type GuestSystem } from './guest-system.js'

/** For an agent on a machine that is not its guest: takes note of what it was told and changes nothing. */
export class DevelopmentSystem implements GuestSystem {
  hostname: string | undefined
  machineId: string | undefined
  entropyBytes = 0
  kept: ConnectionPorts | undefined
  readonly calls: string[] = []

  async setClock(timestampNs: bigint, beganNs: bigint): Promise<number> {
    return clockErrorNs(timestampNs, beganNs) / 1e6
  }

  setHostname(hostname: string): void {
    this.hostname = hostname
  }

  setMachineId(machineId: string): void {
    this.machineId = machineId
  }

  async addEntropy(bytes: Uint8Array): Promise<void> {
    this.entropyBytes += bytes.length
  }

  async dropConnections(kept: ConnectionPorts): Promise<void> {
    this.kept = kept
  }

  async sync(): Promise<void> {
    this.calls.push('sync')
  }

  async setUtf8Input(path: string): Promise<void> {
    await once(spawn('stty', ['-F', path, 'iutf8'], { stdio: 'ignore' }), 'exit')
  }

  async dropCaches(): Promise<void> {
    this.calls.push('dropCaches')
  }
}
