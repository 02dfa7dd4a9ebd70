import { describe, expect, it } from 'vitest'
import { UndoStack } from './undo-stack.js'

describe('UndoStack', () => {
  it('undoes in reverse, tries every step and reports all failures', async () => {
    const ran: number[] = []
    const undo = new UndoStack()
    await undo.defer(() => ran.push(1))
    await undo.defer(() => {
      throw new Error('two')
    })
    await undo.defer(() => ran.push(3))
    await expect(undo[Symbol.asyncDispose]()).rejects.toThrow(AggregateError)
    expect(ran).toEqual([3, 1])
  })

  it('undoes nothing after move, and the new owner undoes once', async () => {
    const ran: number[] = []
    const undo = new UndoStack()
    await undo.defer(() => ran.push(1))
    const owner = undo.move()
    await undo[Symbol.asyncDispose]()
    expect(ran).toEqual([])
    await owner[Symbol.asyncDispose]()
    await owner[Symbol.asyncDispose]()
    expect(ran).toEqual([1])
  })

  it('runs an inverse at once when it comes after disposal', async () => {
    const undo = new UndoStack()
    await undo[Symbol.asyncDispose]()
    let ran = false
    await undo.defer(() => {
      ran = true
    })
    expect(ran).toBe(true)
  })
})
