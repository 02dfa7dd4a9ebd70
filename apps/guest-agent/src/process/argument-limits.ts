import { AppError } from '@wrenn/base'
import { readIfThere } from './birthmark.js'
import type { LaunchSpec } from './launched-process.js'

/** linux/binfmts.h, MAX_ARG_STRLEN without its NUL: the longest single argument or `NAME=value`. */
const MAX_STRING_BYTES = 128 * 1024 - 1
/** Of the soft stack limit, a quarter is for arguments and environment, between these two (execve(2)). */
const MIN_TOTAL_BYTES = 128 * 1024
const MAX_TOTAL_BYTES = 6 * 1024 * 1024
const POINTER_BYTES = 8

/** Says which argument or variable, or how many of them, the kernel refused with E2BIG. */
export function tooLong(spec: Pick<LaunchSpec, 'cmd' | 'args' | 'env'>): AppError {
  const { cmd, args } = spec
  const env = Object.entries(spec.env).map(([name, value]) => ({
    what: `environment variable ${shortened(name)}`,
    text: `${name}=${value}`,
  }))
  const given = [cmd, ...args].map((text, at) => ({ what: at === 0 ? 'cmd' : `argument ${at}`, text }))
  const longest = [...given, ...env].find(({ text }) => Buffer.byteLength(text) > MAX_STRING_BYTES)
  return new AppError('too_large', longest === undefined ? totalMessage(given, env) : singleMessage(longest))
}

interface Part {
  readonly what: string
  readonly text: string
}

function singleMessage({ what, text }: Part): string {
  const size = Buffer.byteLength(text)
  return `The ${what} has ${size} bytes with its name; the kernel passes at most ${MAX_STRING_BYTES} in one argument or variable.`
}

function totalMessage(given: readonly Part[], env: readonly Part[]): string {
  const sizes = `The environment has ${bytesOf(env)} bytes, cmd and args have ${bytesOf(given)}`
  return `${sizes}; the kernel passes at most ${totalLimit()} to a program, both together. Pass it in a file or as stdin.`
}

function bytesOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { text }) => sum + Buffer.byteLength(text) + 1 + POINTER_BYTES, 0)
}

function totalLimit(): number {
  const stack = Number(/^Max stack size\s+(\d+)/m.exec(readIfThere('/proc/self/limits') ?? '')?.[1] ?? Number.NaN)
  return Number.isNaN(stack) ? MAX_TOTAL_BYTES : Math.min(Math.max(stack / 4, MIN_TOTAL_BYTES), MAX_TOTAL_BYTES)
}

const SHOWN_NAME_CHARS = 100

function shortened(name: string): string {
  return name.length > SHOWN_NAME_CHARS ? `${name.slice(0, SHOWN_NAME_CHARS)}…` : name
}
