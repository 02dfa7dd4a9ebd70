import { open, rm } from 'node:fs/promises'

/** Offset of `setup_sects` in the boot sector: https://www.kernel.org/doc/html/latest/arch/x86/boot.html */
const SETUP_SECTS_OFFSET = 0x1f1
const SECTOR_BYTES = 512
/** QEMU wants a header's worth of file, and some kernel after the setup code. */
const KERNEL_BYTES = 4096
const MIN_BYTES = 8192

/**
 * Writes the beginning of a kernel image, enough for QEMU to set up the same devices. A restored guest has its kernel in
 * RAM and cannot boot again, yet QEMU would keep a private copy of the whole image: measured, 11 MiB per guest.
 */
export async function makeKernelStub(
  kernelPath: string,
  stubPath: string,
  owner: { readonly uid: number; readonly gid: number },
): Promise<void> {
  await using kernel = await open(kernelPath, 'r')
  const sectors = (await kernel.read(Buffer.alloc(1), 0, 1, SETUP_SECTS_OFFSET)).buffer[0] || 4 // 0 stands for 4
  const wanted = Math.max((sectors + 1) * SECTOR_BYTES + KERNEL_BYTES, MIN_BYTES)
  const { buffer, bytesRead } = await kernel.read(Buffer.alloc(wanted), 0, wanted, 0)
  await rm(stubPath, { force: true })
  await using stub = await open(stubPath, 'wx', 0o400)
  await stub.writeFile(buffer.subarray(0, bytesRead))
  await stub.chown(owner.uid, owner.gid)
}
