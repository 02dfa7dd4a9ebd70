import { WrennError } from '@wrenn/sdk'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { FieldsRefused } from '../field-errors.js'
import { TemplateWish } from './wish.svelte.js'

// Without the compiler of Svelte, states are plain fields.
const plain = <Value>(value: Value): Value => value
beforeAll(() => {
  vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
})
afterAll(() => {
  vi.unstubAllGlobals()
})

let wish: TemplateWish
beforeEach(() => {
  wish = new TemplateWish()
})

describe('a template that is wanted', () => {
  it('is called as what it is made of until somebody types a name', () => {
    wish.suggest('app')
    wish.suggest('web')
    expect(wish.name).toBe('web')
    wish.name = 'ours'
    wish.suggest('other')
    expect(wish.name).toBe('ours')
  })

  it('has only what was typed', () => {
    expect(wish.options).toEqual({ tags: [] })
    wish.tags = ' v2,stable  x '
    wish.vcpus = 2
    wish.memoryMib = null
    expect(wish.options).toEqual({ tags: ['v2', 'stable', 'x'], vcpus: 2 })
  })

  it('says beside its fields what is refused of them, and leaves the rest to the form', () => {
    const issues = [{ field: 'memory_mb', message: 'Too small' }]
    const refused = new WrennError('no', { code: 'invalid_request', details: { issues } })
    expect(wish.refuse(refused)).toBeInstanceOf(FieldsRefused)
    expect(Object.keys(wish.errors)).toEqual(['memory_mb'])
    expect(wish.refuse(new WrennError('It is taken.', { code: 'template_name_taken' }))).toBeInstanceOf(FieldsRefused)
    expect(wish.errors).toEqual({ name: 'It is taken.' })
    const other = new WrennError('no', { code: 'limit_exceeded' })
    expect(wish.refuse(other)).toBe(other)
    expect(wish.errors).toEqual({})
  })
})
