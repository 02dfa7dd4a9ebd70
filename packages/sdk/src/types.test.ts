import { describe, expectTypeOf, it } from 'vitest'
import type {
  Capsule,
  CapsuleInfo,
  Command,
  ExecResult,
  FileChange,
  Forks,
  ProcessEvent,
  ProcessHandle,
  Quota,
} from './index.js'

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
    expectTypeOf<ReturnType<Capsule['stream']>>().toExtend<AsyncIterable<ProcessEvent>>()
    expectTypeOf<CapsuleInfo['name']>().toEqualTypeOf<string | undefined>()
    expectTypeOf<Capsule>().toExtend<AsyncDisposable>()
  })

  it('give forks as capsules, differences one by one, and no limit as undefined', () => {
    expectTypeOf<Forks[number]>().toEqualTypeOf<Capsule>()
    expectTypeOf<Forks['pauseWindowMs']>().toEqualTypeOf<number>()
    expectTypeOf<ReturnType<Capsule['diff']>>().toExtend<AsyncIterable<FileChange>>()
    expectTypeOf<Quota['vcpus']['limit']>().toEqualTypeOf<number | undefined>()
    expectTypeOf<ExecResult['rolledBack']>().toEqualTypeOf<boolean | undefined>()
  })

  it('tell output, loss and exit apart by their type', () => {
    expectTypeOf<ProcessEvent['type']>().toEqualTypeOf<'stdout' | 'stderr' | 'output' | 'lost' | 'exit'>()
    expectTypeOf<Extract<ProcessEvent, { data: unknown }>['data']>().toEqualTypeOf<Uint8Array>()
    expectTypeOf<Extract<ProcessEvent, { type: 'exit' }>['exitCode']>().toEqualTypeOf<number>()
  })
})
