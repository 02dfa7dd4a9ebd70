/**
 * Leaves `task` when `signal` ends; the task goes on, and its own error is nobody's then.
 * @throws what the task throws; the signal's reason
 */
export async function abortable<T>(task: Promise<T>, signal: AbortSignal): Promise<T> {
  task.catch(() => {}) // who has left hears nothing of it
  signal.throwIfAborted()
  return await new Promise<T>((resolve, reject) => {
    const leave = (): void => reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    task.finally(() => signal.removeEventListener('abort', leave)).then(resolve, reject)
  })
}
