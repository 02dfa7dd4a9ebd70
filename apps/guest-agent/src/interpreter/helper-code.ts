type Values = Readonly<Record<string, string>>

/** What the image's module for kernels (`images/code-interpreter/kernel.py`) is asked for; leaves no name behind. */
export const HelperCode = {
  popEnvironment: call('pop_environment'),
  renew: call('renew'),
  warmUp: call('warm_up'),
} as const

/** Python that gives the environment `values`, and takes `removed` from it, from now on. */
export function setEnvironmentCode(values: Values, removed: readonly string[]): string {
  return call('set_environment', values, removed)
}

/** Python that gives the environment `values` until `popEnvironment`. */
export function pushEnvironmentCode(values: Values): string {
  return call('push_environment', values)
}

/** Values travel as JSON in a JSON string, which is a string of Python too. */
function call(name: string, ...values: readonly unknown[]): string {
  const given = values.map((value) => JSON.stringify(JSON.stringify(value)))
  return `__import__('wrenn_kernel').${name}(${given.join(', ')})`
}
