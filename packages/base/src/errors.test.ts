import { expect, it } from 'vitest'
import { AppError, firstFailure } from './errors.js'

class Failing implements Disposable {
  [Symbol.dispose](): void {
    throw new Error('the clean-up failed')
  }
}

/** What is thrown when the work and two clean-ups after it fail. */
function failed(work: unknown): unknown {
  try {
    using _one = new Failing()
    using _two = new Failing()
    throw work
  } catch (error) {
    return error
  }
}

it('what went wrong is told, not that its clean-up failed too', () => {
  const work = new AppError('disk_full', 'The disk is full.')
  expect(failed(work)).not.toBe(work)
  expect(firstFailure(failed(work))).toBe(work)
  expect(AppError.from(failed(work))).toBe(work)
  expect(AppError.from(failed(new Error('broken')))).toMatchObject({ code: 'internal', cause: { message: 'broken' } })
})

it('anything else is what it is', () => {
  const error = new Error('broken')
  expect([firstFailure(error), firstFailure('text'), firstFailure(undefined)]).toEqual([error, 'text', undefined])
})
