import type { ProcessEvent } from './process.js'

/**
 * A handle that is being opened: `await` it for the handle, or read its events at once with `for await`. Reaching for anything
 * else of the handle without `await` throws a TypeError that says so.
 */
export type Opening<Handle> = Promise<Handle> & AsyncIterable<ProcessEvent>

/** What a handle has of its own; the rest is its class's. */
const FIELDS = ['pid', 'tag']

/** @param call how the caller wrote it, for the error */
export function opening<Handle extends AsyncIterable<ProcessEvent>>(
  call: string,
  Class: { readonly prototype: Handle },
  handle: Promise<Handle>,
): Opening<Handle> {
  for (const name of [...FIELDS, ...membersOf(Class.prototype)]) {
    if (!(name in handle)) Reflect.defineProperty(handle, name, forgotten(call, name))
  }
  return Object.assign(handle, {
    async *[Symbol.asyncIterator]() {
      yield* await handle
    },
  })
}

function membersOf(prototype: object): string[] {
  const parent: object | null = Object.getPrototypeOf(prototype)
  const own = Object.getOwnPropertyNames(prototype)
  return parent === null || parent === Object.prototype ? own : [...own, ...membersOf(parent)]
}

function forgotten(call: string, name: string): PropertyDescriptor {
  return {
    get(): never {
      throw new TypeError(`capsule.${call}(…) is a promise: write \`(await capsule.${call}(…)).${name}\`.`)
    },
  }
}
