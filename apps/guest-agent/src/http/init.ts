import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError, errorText } from '@wrenn/base'
import { type Identity, unauthorized } from '../identity/identity.js'
import { type ConnectionPorts, clockErrorNs, type GuestSystem } from '../system/guest-system.js'
import { agentVersion } from '../version.js'
import type { Connections } from './connections.js'
import { parseObject, readText, sendJson } from './reply.js'

const MAX_BODY_BYTES = 4 * 1024 * 1024
/** Half of what the kernel passes to a program: a capsule whose environment left no room could run nothing. */
const MAX_ENVS_BYTES = 1024 * 1024

interface InitBody {
  readonly secret?: string | undefined
  readonly accessToken?: string | undefined
  readonly hostname?: string | undefined
  readonly machineId?: string | undefined
  readonly timestampNs?: bigint | undefined
  readonly entropy?: Buffer | undefined
  readonly envs?: Readonly<Record<string, string>> | undefined
  readonly defaultUser?: string | undefined
  readonly defaultCwd?: string | undefined
  readonly forgetEnded: boolean
  readonly resumed: boolean
}

interface InitDependencies {
  readonly identity: Identity
  readonly system: GuestSystem
  readonly connections: Connections
  /** Drops ended processes and their output. */
  readonly forgetEnded: () => void
}

/**
 * `POST /init`: gives this guest its identity, after boot and after every restore. The first one claims the agent; later ones
 * need the secret that holds at that moment, and may replace it. An access token never suffices. `resumed` says that this guest
 * was saved while it ran (a pause, a rollback, a fork): its connections of before lead nowhere and are ended.
 */
export async function handleInit(
  request: IncomingMessage,
  response: ServerResponse,
  { identity, system, connections, forgetEnded }: InitDependencies,
): Promise<void> {
  const beganNs = process.hrtime.bigint()
  if (identity.isClaimed && !identity.isHost(request.headers)) throw unauthorized()
  const body = parseInit(await readText(request, MAX_BODY_BYTES))
  // Another claim may have come first while the body was read.
  if (identity.isClaimed && !identity.isHost(request.headers)) throw unauthorized()
  if (!identity.isClaimed && body.secret === undefined) {
    throw new AppError('invalid_request', 'The first /init must set a secret.')
  }
  requireKnownUser(body.defaultUser, identity)
  const { secret, accessToken, envs, defaultUser, defaultCwd, timestampNs } = body
  identity.update({ secret, accessToken, envs, defaultUser, defaultCwd })
  if (body.forgetEnded) forgetEnded()
  const problems: string[] = []
  if (body.resumed) connections.resetOthers(request.socket)
  const work = new Steps(problems)
  const { entropy, machineId, hostname } = body
  // Those that wait for the kernel are under way together; meanwhile the files are written.
  const clock = timestampNs === undefined ? undefined : work.run('clock', () => system.setClock(timestampNs, beganNs))
  const seeded = entropy && work.run('entropy', () => system.addEntropy(entropy))
  const dropped = body.resumed && work.run('connections', () => system.dropConnections(portsOf(request)))
  if (machineId !== undefined) await work.run('machineId', async () => system.setMachineId(machineId))
  if (hostname !== undefined) await work.run('hostname', async () => system.setHostname(hostname))
  await seeded
  await dropped
  const errorMs = (await clock) ?? (timestampNs === undefined ? 0 : clockErrorNs(timestampNs, beganNs) / 1e6)
  const clockErrorMs = Math.round(errorMs)
  // With it the host tells how long this call was on its way, by which the clock may be late.
  const tookMs = Number(process.hrtime.bigint() - beganNs) / 1e6
  sendJson(response, 200, { agentVersion, clockErrorMs, tookMs, ...(problems.length === 0 ? {} : { problems }) })
}

function portsOf({ socket }: IncomingMessage): ConnectionPorts {
  return { localPort: socket.localPort ?? 0, remotePort: socket.remotePort ?? 0 }
}

/** What a capsule's owner did to these files (made them read-only, a directory …) must not keep the capsule from resuming. */
class Steps {
  readonly #problems: string[]

  constructor(problems: string[]) {
    this.#problems = problems
  }

  async run<T>(name: string, step: () => Promise<T>): Promise<T | undefined> {
    try {
      return await step()
    } catch (error) {
      this.#problems.push(`${name}: ${errorText(error)}`)
      return undefined
    }
  }
}

/** A 401 for the user would read as a wrong secret. */
function requireKnownUser(name: string | undefined, identity: Identity): void {
  // One that was good is not looked for again: an owner who removes it must still be able to resume.
  if (name === undefined || name === identity.values.defaultUser) return
  try {
    identity.userNamed(name)
  } catch (error) {
    if (!AppError.is(error, 'unauthorized')) throw error
    throw new AppError('invalid_request', `defaultUser: ${error.message}`)
  }
}

function parseInit(text: string): InitBody {
  const fields = parseObject(text, '/init')
  return {
    secret: textOf(fields, 'secret', /^[\x21-\x7e]{16,}$/),
    accessToken: textOf(fields, 'accessToken', /^[\x21-\x7e]+$/),
    hostname: textOf(fields, 'hostname', /^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$/),
    machineId: textOf(fields, 'machineId', /^[0-9a-f]{32}$/),
    timestampNs: bigintOf(textOf(fields, 'timestampNs', /^\d{1,19}$/)),
    entropy: bytesOf(textOf(fields, 'entropy', /^[A-Za-z0-9+/]*={0,2}$/)),
    envs: envsOf(fields.envs),
    defaultUser: textOf(fields, 'defaultUser', /^[^:\s/]+(:\d+)?$/),
    defaultCwd: textOf(fields, 'defaultCwd', /^[^\0]+$/),
    forgetEnded: fields.forgetEnded === true,
    resumed: fields.resumed === true,
  }
}

function textOf(fields: Readonly<Record<string, unknown>>, name: string, shape: RegExp): string | undefined {
  const value = fields[name]
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value === 'string' && shape.test(value)) return value
  throw new AppError('invalid_request', `${name} is not of the form ${shape.source}.`)
}

function bigintOf(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : BigInt(text)
}

function bytesOf(text: string | undefined): Buffer | undefined {
  return text === undefined ? undefined : Buffer.from(text, 'base64')
}

function envsOf(value: unknown): Readonly<Record<string, string>> | undefined {
  if (value === undefined || value === null) return undefined
  const entries = typeof value === 'object' && !Array.isArray(value) ? Object.entries(value) : [['', undefined]]
  const isUsable = ([name, text]: unknown[]): boolean =>
    typeof name === 'string' && /^[^=\0]+$/.test(name) && typeof text === 'string' && !text.includes('\0')
  if (!entries.every(isUsable)) throw new AppError('invalid_request', 'envs must map variable names to texts.')
  const bytes = entries.reduce((sum, [name, text]) => sum + Buffer.byteLength(`${name}=${text}`) + 1, 0)
  if (bytes > MAX_ENVS_BYTES) {
    throw new AppError('too_large', `The capsule's environment would have ${bytes} bytes, at most ${MAX_ENVS_BYTES}.`)
  }
  return Object.fromEntries(entries)
}
