import { AppError } from '@wrenn/base'
import { objectOf, textOf } from './kernel-messages.js'

/** Starting a kernel on an emulated CPU that others use too. */
const START_TIMEOUT_MS = 120_000
const CALL_TIMEOUT_MS = 60_000

/** The REST API of the Jupyter Server beside us. */
export class JupyterApi {
  readonly #url: string

  /** @param url such as `http://127.0.0.1:8888` */
  constructor(url: string) {
    this.#url = url
  }

  /** Whether it answers. */
  async isUp(): Promise<boolean> {
    return await this.#call('GET', '/api/status', CALL_TIMEOUT_MS).then(
      () => true,
      () => false,
    )
  }

  /** Starts a kernel in a directory that is there. @returns its id */
  async startKernel(cwd: string): Promise<string> {
    const body = { name: 'python3', path: cwd.slice(1) }
    const id = textOf(objectOf(await this.#call('POST', '/api/kernels', START_TIMEOUT_MS, body)).id)
    if (id === undefined) throw new AppError('guest_error', 'Jupyter Server gave a kernel no id.')
    return id
  }

  /** Ends the code that it runs, by SIGINT. */
  async interrupt(kernelId: string): Promise<void> {
    await this.#call('POST', `/api/kernels/${kernelId}/interrupt`, CALL_TIMEOUT_MS)
  }

  /** Ends a kernel and starts it anew under the same id. */
  async restart(kernelId: string): Promise<void> {
    await this.#call('POST', `/api/kernels/${kernelId}/restart`, START_TIMEOUT_MS)
  }

  async remove(kernelId: string): Promise<void> {
    await this.#call('DELETE', `/api/kernels/${kernelId}`, CALL_TIMEOUT_MS)
  }

  /** Where a session of a client with a kernel is opened. */
  channelsUrl(kernelId: string, session: string): string {
    return `${this.#url.replace(/^http/, 'ws')}/api/kernels/${kernelId}/channels?session_id=${session}`
  }

  async #call(method: string, path: string, timeoutMs: number, body?: unknown): Promise<unknown> {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (response.ok) return text === '' ? undefined : JSON.parse(text)
    throw new AppError('guest_error', `Jupyter Server answered ${response.status} to ${method} ${path}.`)
  }
}
