import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'

/** `sun_path` of unix(7), less the closing zero. */
const MAX_SOCKET_PATH_BYTES = 107

/**
 * What lives in a guest's run directory. The directory belongs to QEMU's uid, which a hostile guest may have taken over:
 * never follow a link in there, and never open a file that may already exist.
 */
export interface RunFiles {
  /** We listen; QEMU connects as its first act, which tells that it is up. */
  readonly bootSocket: string
  /** QEMU listens: the monitor for whoever adopts the guest later. */
  readonly monitorSocket: string
  /** We listen; QEMU sends device state. */
  readonly saveSocket: string
  /** QEMU listens for device state. */
  readonly loadSocket: string
  /** The beginning of the kernel's image, for a restore. */
  readonly kernelStub: string
  /** QEMU's own words. */
  readonly engineLog: string
  /** The end of the guest's console, kept when the guest ends or the handle is dropped. */
  readonly consoleTail: string
}

/** @throws AppError `invalid_config` when the directory's name is too long for unix sockets. */
export function runFiles(runDir: string): RunFiles {
  const longest = join(runDir, 'monitor.sock')
  if (Buffer.byteLength(longest) > MAX_SOCKET_PATH_BYTES) {
    const message = `The run directory ${runDir} is too long for unix sockets (${MAX_SOCKET_PATH_BYTES} bytes); use a shorter WRENN_DIR.`
    throw new AppError('invalid_config', message)
  }
  return {
    bootSocket: join(runDir, 'boot.sock'),
    monitorSocket: longest,
    saveSocket: join(runDir, 'save.sock'),
    loadSocket: join(runDir, 'load.sock'),
    kernelStub: join(runDir, 'kernel.stub'),
    engineLog: join(runDir, 'qemu.log'),
    consoleTail: join(runDir, 'console.tail'),
  }
}

/** Takes away sockets that an earlier guest left, at which a new QEMU could not listen. Missing ones are fine. */
export async function removeSockets(files: RunFiles): Promise<void> {
  const sockets = [files.bootSocket, files.monitorSocket, files.saveSocket, files.loadSocket]
  await Promise.all(sockets.map((path) => rm(path, { force: true })))
}
