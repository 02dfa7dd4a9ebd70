import { DATA_ADDRESS, type KernelCalls } from './kernel-calls.js'

const CLOSE = 3
const IOCTL = 16
const OPENAT = 257
const AT_FDCWD = -100
/** fcntl.h: O_RDWR, O_NOCTTY and O_CLOEXEC. */
const OPEN_FLAGS = 0o2000402
/** asm-generic/ioctls.h and asm-generic/termbits.h */
const TCGETS = 0x5401
const TCSETS = 0x5402
const IUTF8 = 0x4000
const TERMIOS_BYTES = 36

/**
 * Tells the terminal at `path` that its input is UTF-8 (termios(3), IUTF8): the kernel's own line editing then takes a whole
 * character back, not one of its bytes.
 * @throws AppError `guest_error` with the kernel's error name
 */
export async function setUtf8Input(calls: KernelCalls, path: string): Promise<void> {
  const what = `preparing ${path}`
  const name = Buffer.from(`${path}\0`)
  const { result: fd } = await calls.make(what, {
    number: OPENAT,
    args: [AT_FDCWD, DATA_ADDRESS, OPEN_FLAGS, 0],
    data: name,
  })
  try {
    const answerBytes = TERMIOS_BYTES
    const { data: termios } = await calls.make(what, { number: IOCTL, args: [fd, TCGETS, DATA_ADDRESS], answerBytes })
    termios.writeUInt32LE(termios.readUInt32LE(0) | IUTF8, 0)
    await calls.make(what, { number: IOCTL, args: [fd, TCSETS, DATA_ADDRESS], data: termios })
  } finally {
    await calls.make(what, { number: CLOSE, args: [fd] })
  }
}
