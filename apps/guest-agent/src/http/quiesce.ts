import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError, errorText } from '@wrenn/base'
import type { ProcessRegistry } from '../process/registry.js'
import type { GuestSystem } from '../system/guest-system.js'
import { parseObject, readText, sendJson } from './reply.js'

const MAX_BODY_BYTES = 64 * 1024
const DEFAULT_TIMEOUT_MS = 5_000
const MAX_TIMEOUT_MS = 10 * 60_000

/**
 * `POST /quiesce {sync, dropCaches?, timeoutMs?}`: brings what is on its way to the disk there, before the machine is saved.
 * Answers within `timeoutMs` whatever happens: `flushed` (the agent's output logs), `synced` (the whole data file system; only
 * with `sync`) and `droppedCaches` say what was done by then. What was not goes on.
 */
export async function handleQuiesce(
  request: IncomingMessage,
  response: ServerResponse,
  registry: ProcessRegistry,
  system: GuestSystem,
): Promise<void> {
  const { sync, dropCaches, timeoutMs } = parseQuiesce(await readText(request, MAX_BODY_BYTES))
  const problems: string[] = []
  const deadline = new Deadline(timeoutMs)
  const step = async (name: string, work: () => Promise<void>): Promise<boolean> => {
    try {
      return await deadline.met(work())
    } catch (error) {
      problems.push(`${name}: ${errorText(error)}`)
      return false
    }
  }
  const flushed = await step('flush', () => registry.flush())
  const synced = sync && (await step('sync', () => system.sync()))
  const droppedCaches = dropCaches && (await step('dropCaches', () => system.dropCaches()))
  deadline.clear()
  sendJson(response, 200, { flushed, synced, droppedCaches, ...(problems.length === 0 ? {} : { problems }) })
}

class Deadline {
  readonly #passed: Promise<false>
  #timer: NodeJS.Timeout | undefined
  #isPast = false

  constructor(timeoutMs: number) {
    this.#passed = new Promise((resolve) => {
      this.#timer = setTimeout(() => {
        this.#isPast = true
        resolve(false)
      }, timeoutMs)
    })
  }

  /** True when `work` was done in time. */
  async met(work: Promise<void>): Promise<boolean> {
    // It may fail after nobody waits for it any more.
    work.catch(() => undefined)
    return this.#isPast ? false : await Promise.race([work.then(() => true), this.#passed])
  }

  clear(): void {
    clearTimeout(this.#timer)
  }
}

interface QuiesceBody {
  readonly sync: boolean
  readonly dropCaches: boolean
  readonly timeoutMs: number
}

function parseQuiesce(text: string): QuiesceBody {
  const fields = parseObject(text, '/quiesce')
  const timeoutMs = fields.timeoutMs ?? DEFAULT_TIMEOUT_MS
  if (typeof timeoutMs !== 'number' || !(timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT_MS)) {
    throw new AppError('invalid_request', `timeoutMs must be between 1 and ${MAX_TIMEOUT_MS}.`)
  }
  return { sync: fields.sync === true, dropCaches: fields.dropCaches === true, timeoutMs }
}
