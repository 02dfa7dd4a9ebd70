import { randomHex } from '../system/random.js'
import { type ExecutionEvent, errorEvent, eventOf } from './events.js'
import { HelperCode, pushEnvironmentCode, setEnvironmentCode } from './helper-code.js'
import type { JupyterApi } from './jupyter-api.js'
import { KernelLine } from './kernel-line.js'

/** A capsule as its kernels see it. */
export interface CapsuleView {
  /** Of the capsule itself: what every process in it has. */
  readonly envs: Readonly<Record<string, string>>
  /** Differs from copy to copy of the same memory. */
  readonly mark: string
}

/** As clients are told of it. */
export interface ContextInfo {
  readonly id: string
  readonly language: 'python'
  readonly cwd: string
}

/** Takes events, and says when it cannot take more for now. */
export interface EventSink {
  /** @returns false until `onceReady` has called */
  write(event: ExecutionEvent): boolean
  onceReady(ready: () => void): void
}

/** What one execution is given. */
export interface ExecutionOptions {
  readonly code: string
  readonly envs: Readonly<Record<string, string>>
  /** Whoever asked has left: what waits is not begun, what runs is interrupted. */
  readonly signal: AbortSignal
}

const RESTARTED = 'The context was restarted.'

/** One kernel and its variables. Executions run one after the other. */
export class Context {
  readonly info: ContextInfo
  readonly #kernelId: string
  readonly #jupyter: JupyterApi
  readonly #look: () => CapsuleView
  #line: KernelLine
  #last: Promise<unknown> = Promise.resolve()
  #restarts = 0
  #applied: (CapsuleView & { readonly ends: number }) | undefined

  private constructor(
    info: ContextInfo,
    kernelId: string,
    line: KernelLine,
    jupyter: JupyterApi,
    look: () => CapsuleView,
  ) {
    this.info = info
    this.#kernelId = kernelId
    this.#line = line
    this.#jupyter = jupyter
    this.#look = look
  }

  /** Starts a kernel. @param look what the capsule is at a moment @throws AppError `guest_error` */
  static async start(jupyter: JupyterApi, cwd: string, look: () => CapsuleView): Promise<Context> {
    const kernelId = await jupyter.startKernel(cwd)
    const info = { id: randomHex(16), language: 'python', cwd } as const
    return new Context(info, kernelId, await openLine(jupyter, kernelId), jupyter, look)
  }

  /** Runs code and gives what it says to the sink, in order; returns when it has ended. */
  async execute(options: ExecutionOptions, sink: EventSink): Promise<void> {
    const restarts = this.#restarts
    await this.#inTurn(async () => {
      if (options.signal.aborted) return
      if (restarts === this.#restarts) await this.#execute(options, sink)
      else sink.write(errorEvent('KernelEnded', RESTARTED))
    })
  }

  /** Runs code that nobody is told of. */
  async prepare(code: string): Promise<void> {
    await this.#inTurn(async () => await this.#helper(code))
  }

  /** Forgets all variables; what runs and what waits for its turn is told that it ended. */
  async restart(): Promise<void> {
    this.#restarts++
    this.#line.abandonRuns(RESTARTED)
    await this.#inTurn(async () => {
      this.#applied = undefined
      await this.#jupyter.restart(this.#kernelId)
      // A kernel that is started anew has other sockets.
      this.#line.close(RESTARTED)
      this.#line = await openLine(this.#jupyter, this.#kernelId)
    })
  }

  async remove(): Promise<void> {
    this.#line.close('The context was removed.')
    await this.#jupyter.remove(this.#kernelId)
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => {}) // told to who asked
    await turn
  }

  async #execute({ code, envs, signal }: ExecutionOptions, sink: EventSink): Promise<void> {
    if (!this.#line.isOpen) this.#line = await openLine(this.#jupyter, this.#kernelId)
    await this.#adapt()
    if (signal.aborted) return
    const line = this.#line
    const hasEnvs = Object.keys(envs).length > 0
    const interrupt = (): void => {
      // A kernel that ended meanwhile has nothing to interrupt.
      this.#jupyter.interrupt(this.#kernelId).catch(() => {})
    }
    signal.addEventListener('abort', interrupt, { once: true })
    try {
      // Without waiting in between: the kernel takes them in order.
      const before = hasEnvs ? this.#helper(pushEnvironmentCode(envs)) : undefined
      const run = line.run(
        { id: randomHex(16), code, silent: false },
        {
          onMessage: (message) => {
            const event = eventOf(message)
            if (event === undefined || sink.write(event)) return
            line.pause()
            sink.onceReady(() => line.resume())
          },
          onGone: (reason) => void sink.write(errorEvent('KernelEnded', reason)),
        },
      )
      const after = hasEnvs ? this.#helper(HelperCode.popEnvironment) : undefined
      await Promise.all([before, run, after])
    } finally {
      signal.removeEventListener('abort', interrupt)
    }
  }

  /** Gives the kernel the capsule's environment as it is now, and randomness of its own after a copy. */
  async #adapt(): Promise<void> {
    const view = this.#look()
    const { ends } = this.#line
    const before: CapsuleView = this.#applied?.ends === ends ? this.#applied : { envs: {}, mark: '' }
    const removed = Object.keys(before.envs).filter((name) => !(name in view.envs))
    const isChanged =
      removed.length > 0 || Object.entries(view.envs).some(([name, value]) => before.envs[name] !== value)
    if (isChanged) await this.#helper(setEnvironmentCode(view.envs, removed))
    if (before.mark !== view.mark) await this.#helper(HelperCode.renew)
    this.#applied = { ...view, ends }
  }

  async #helper(code: string): Promise<void> {
    await this.#line.run({ id: randomHex(16), code, silent: true }, { onMessage: () => {}, onGone: () => {} })
  }
}

async function openLine(jupyter: JupyterApi, kernelId: string): Promise<KernelLine> {
  const session = randomHex(16)
  return await KernelLine.open(jupyter.channelsUrl(kernelId, session), session)
}
