import { AppError } from '@wrenn/base'
import { MAX_WORD_LENGTH } from '@wrenn/protocol'
import type { ProcessDefaults } from '../../store/schema.js'
import type { BuildGuest } from './guest.js'

const reference = /\\\$|\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)/g
const MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024

/**
 * Values of variables with those in their place that they name, as `$NAME` or `${NAME}`, such as `/opt/bin:$PATH`. A name that there is
 * none of stays as it is, and so does the dollar of `\$`.
 * @throws AppError `build_failed` where a variable of the guest that is named is no text, or a value would be too long
 */
export async function expandValues(
  guest: Pick<BuildGuest, 'answer'>,
  state: ProcessDefaults,
  values: Readonly<Record<string, string>>,
): Promise<Record<string, string>> {
  if (!Object.values(values).some((value) => value.includes('$'))) return { ...values }
  const known = await environmentOf(guest, state)
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, expand(name, value, known)]))
}

/** A variable of the guest; `undefined` where there is none of that name. */
type Environment = (name: string) => string | undefined

function expand(variable: string, value: string, known: Environment): string {
  let length = 0
  return value.replaceAll(reference, (match: string, braced?: string, bare?: string) => {
    const name = braced ?? bare
    if (name === undefined) return '$'
    const found = known(name)
    if (found === undefined) return match
    length += found.length
    if (length <= MAX_WORD_LENGTH) return found
    throw new AppError('build_failed', `ENV: ${variable} would have more than ${MAX_WORD_LENGTH} characters.`)
  })
}

/** A value is never cut or changed on its way. @throws AppError `build_failed` where it is no text */
function textOf(name: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new AppError('build_failed', `The variable ${name} of the template is not UTF-8.`, { cause })
  }
}

/** An image may lack it. */
const ENV = 'command -v env >/dev/null || exec /.wrenn/bin/busybox env -0; exec env -0'

/** What a command of the build would find. @returns it by name; it throws AppError `build_failed` for what is no text */
export async function environmentOf(guest: Pick<BuildGuest, 'answer'>, state: ProcessDefaults): Promise<Environment> {
  const printed = await guest.answer({ cmd: '/bin/sh', args: ['-c', ENV], ...state }, MAX_ENVIRONMENT_BYTES)
  const known = new Map<string, Uint8Array>()
  for (let at = 0; at < printed.length; ) {
    const end = printed.indexOf(0, at)
    const entry = printed.subarray(at, end === -1 ? printed.length : end)
    const equals = entry.indexOf('=')
    if (equals > 0) known.set(entry.subarray(0, equals).toString(), entry.subarray(equals + 1))
    at += entry.length + 1
  }
  const texts = new Map<string, string>()
  return (name) => {
    const bytes = known.get(name)
    if (bytes === undefined) return undefined
    const text = texts.get(name) ?? textOf(name, bytes)
    texts.set(name, text)
    return text
  }
}
