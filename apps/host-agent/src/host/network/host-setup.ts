import { chmod, readFile, stat, writeFile } from 'node:fs/promises'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import { run, runForResult } from '../exec.js'
import type { SlotRange } from './address.js'
import { dnsLink } from './own-links.js'
import { type RootPolicy, rootRules } from './rules.js'
import { listLinks, removeSlots } from './slot.js'

const TUN = '/dev/net/tun'
const FORWARDING = '/proc/sys/net/ipv4/ip_forward'

interface HostSetup extends RootPolicy {
  /** Of the link that has the forwarder's address. */
  readonly label: string
}

/** Everything of the root namespace that slots need; safe to repeat. */
export async function setUpHost(
  prefix: string,
  range: SlotRange,
  { label, ...policy }: HostSetup,
  logger: Logger,
): Promise<void> {
  await openTun(logger)
  await enableForwarding(logger)
  await run('nft', ['-f', '-'], { input: rootRules(prefix, range, policy) })
  await makeDnsLink(dnsLink(prefix), range.dns, label)
}

/** Removes what `setUpHost` made; forwarding stays as it is, others may count on it by now. */
export async function tearDownHost(prefix: string): Promise<void> {
  await removeSlots([dnsLink(prefix)])
  // Adding first makes the deletion succeed whether the table was there or not.
  await run('nft', ['-f', '-'], { input: `table inet ${prefix}\ndelete table inet ${prefix}\n` })
}

/** The VM's own uid opens its tap, so the device node must be as udev leaves it; a machine without udev has it closed. */
async function openTun(logger: Logger): Promise<void> {
  try {
    const mode = (await stat(TUN)).mode & 0o777
    if (mode === 0o666) return
    await chmod(TUN, 0o666)
    logger.warn({ device: TUN, from: mode.toString(8), to: '666' }, 'network.tun_opened')
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    throw new AppError('engine_failure', `${TUN} is missing; load the kernel module with \`modprobe tun\`.`)
  }
}

async function enableForwarding(logger: Logger): Promise<void> {
  if ((await readFile(FORWARDING, 'utf8')).trim() === '1') return
  await writeFile(FORWARDING, '1')
  logger.warn({ sysctl: 'net.ipv4.ip_forward', from: '0', to: '1' }, 'network.forwarding_enabled')
}

/** A link of its own for the forwarder's address. A bridge without ports does where the kernel has no dummy device. */
async function makeDnsLink(name: string, address: string, label: string): Promise<void> {
  const exists = (await listLinks()).some((link) => link.name === name)
  if (!exists) {
    const dummy = await runForResult('ip', ['link', 'add', name, 'type', 'dummy'])
    if (dummy.exitCode !== 0) await run('ip', ['link', 'add', name, 'type', 'bridge'])
  }
  const commands = [
    `link set ${name} alias "${label}"`,
    `addr replace ${address}/32 dev ${name}`,
    `link set ${name} up`,
    '',
  ]
  await run('ip', ['-batch', '-'], { input: commands.join('\n') })
}
