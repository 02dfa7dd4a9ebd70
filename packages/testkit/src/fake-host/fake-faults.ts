import type { AppError } from '@wrenn/base'

export const fakeOperations = [
  'create',
  'destroy',
  'pause',
  'resume',
  'fork',
  'checkpoint',
  'diff',
  'read_file_at',
  'rollback',
  'snapshot',
  'egress',
  'fetch',
  'export',
  'store',
  'fetch_state',
  'free',
  'pool_usage',
] as const
export type FakeOperation = (typeof fakeOperations)[number]

/** `before`: accepted, and nothing is saved or changed for good; `after`: done for good, and not answered yet. */
export type FaultPoint = 'before' | 'after'

export interface Held {
  /** Resolves when an operation waits there. */
  readonly reached: Promise<void>
  /** Lets it go on, or fail with `error`. */
  release(error?: AppError): void
}

interface Fault {
  readonly operation: FakeOperation
  readonly point: FaultPoint
  readonly pass: () => Promise<void>
}

/** What is to go wrong with the next operation of a kind. Each is used once, in the order in which they were asked for. */
export class FakeFaults {
  readonly #planned: Fault[] = []

  hold(operation: FakeOperation, point: FaultPoint): Held {
    let arrived = (): void => {}
    let release: Held['release'] = () => {}
    const reached = new Promise<void>((resolve) => {
      arrived = resolve
    })
    const open = new Promise<AppError | undefined>((resolve) => {
      release = (error) => resolve(error)
    })
    const pass = async (): Promise<void> => {
      arrived()
      const error = await open
      if (error !== undefined) throw error
    }
    this.#planned.push({ operation, point, pass })
    return { reached, release }
  }

  async pass(operation: FakeOperation, point: FaultPoint): Promise<void> {
    const index = this.#planned.findIndex((fault) => fault.operation === operation && fault.point === point)
    if (index >= 0) await this.#planned.splice(index, 1)[0]?.pass()
  }
}
