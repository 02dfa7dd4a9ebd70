import { parseAddress } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { NameResolver, TooManyLookups } from './resolver.js'

const addresses = [parseAddress('9.9.9.9')]

describe('the filter’s resolver', () => {
  it('asks once for those who ask at the same time, and again when the answer is too old', async () => {
    let [asked, nowMs] = [0, 0]
    const ask = async () => {
      asked += 1
      return [{ address: '9.9.9.9', ttl: 30 }]
    }
    const resolver = new NameResolver(ask, () => nowMs)
    await Promise.all(['one', 'two'].map((source) => resolver.addresses('a.example', source)))
    expect([await resolver.addresses('a.example', 'one'), asked]).toEqual([addresses, 1])
    nowMs = 30_001
    await resolver.addresses('a.example', 'one')
    expect(asked).toBe(2)
  })

  it('keeps an answer no longer than a minute, whatever its server says', async () => {
    let [asked, nowMs] = [0, 0]
    const ask = async () => {
      asked += 1
      return [{ address: '9.9.9.9', ttl: 86_400 }]
    }
    const resolver = new NameResolver(ask, () => nowMs)
    await resolver.addresses('a.example', 'one')
    nowMs = 60_001
    await resolver.addresses('a.example', 'one')
    expect(asked).toBe(2)
  })

  it('remembers no failure', async () => {
    let fails = true
    const ask = async () => {
      if (fails) throw new Error('SERVFAIL')
      return [{ address: '9.9.9.9', ttl: 30 }]
    }
    const resolver = new NameResolver(ask)
    expect(await resolver.addresses('a.example', 'one')).toEqual([])
    fails = false
    expect(await resolver.addresses('a.example', 'one')).toEqual(addresses)
  })

  it('bounds what one source waits for, and no other’s', async () => {
    let answer = (): void => {}
    const gate = new Promise<void>((resolve) => {
      answer = resolve
    })
    const resolver = new NameResolver(async () => {
      await gate
      return [{ address: '9.9.9.9', ttl: 30 }]
    })
    const waiting = Array.from({ length: 64 }, (_, n) => resolver.addresses(`n${n}.example`, 'one'))
    await expect(resolver.addresses('more.example', 'one')).rejects.toBeInstanceOf(TooManyLookups)
    const others = resolver.addresses('more.example', 'two')
    answer()
    expect(await others).toEqual(addresses)
    await Promise.all(waiting)
    expect(await resolver.addresses('more.example', 'one')).toEqual(addresses)
  })
})
