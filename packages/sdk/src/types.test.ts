import { describe, expectTypeOf, it } from 'vitest'
import type { Capsule, CapsuleInfo, Command, ExecResult, ProcessEvent, ProcessHandle } from './index.js'

/** Checked by the compiler; running them only lists them. */
describe('the public types', () => {
  it('make a command a shell line or a program with arguments, never an empty array', () => {
    expectTypeOf<'ls -l'>().toExtend<Command>()
    expectTypeOf<['ls', '-l']>().toExtend<Command>()
    expectTypeOf<[]>().not.toExtend<Command>()
  })

  it('give results, handles and plain readonly data', () => {
    expectTypeOf<Capsule['exec']>().returns.resolves.toEqualTypeOf<ExecResult>()
    expectTypeOf<Capsule['stream']>().returns.resolves.toEqualTypeOf<ProcessHandle>()
    expectTypeOf<CapsuleInfo['name']>().toEqualTypeOf<string | undefined>()
    expectTypeOf<Capsule>().toExtend<AsyncDisposable>()
  })

  it('tell output, loss and exit apart by their type', () => {
    expectTypeOf<ProcessEvent['type']>().toEqualTypeOf<'stdout' | 'stderr' | 'output' | 'lost' | 'exit'>()
    expectTypeOf<Extract<ProcessEvent, { data: unknown }>['data']>().toEqualTypeOf<Uint8Array>()
    expectTypeOf<Extract<ProcessEvent, { type: 'exit' }>['exitCode']>().toEqualTypeOf<number>()
  })
})
