import { parseCidr } from '@wrenn/base'
import { parseImageReference } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { type AllowedNetwork, RegistryRules, type RegistrySettings, type Resolve } from './rules.js'

const nothing: RegistrySettings = { registries: [], allowed: [], plain: [] }
const noName: Resolve = async (host) => {
  throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: 'ENOTFOUND' })
}

function rulesOf(settings: Partial<RegistrySettings>, resolve: Resolve = noName): RegistryRules {
  return new RegistryRules({ ...nothing, ...settings }, resolve, () => ['203.0.113.7'])
}

function allowed(text: string, port?: number): AllowedNetwork {
  const network = parseCidr(text)
  if (network === undefined) throw new Error(`${text} is no network`)
  return { network, ...(port === undefined ? {} : { port }) }
}

function need(rules: RegistryRules, text: string): void {
  const reference = parseImageReference(text)
  if (reference === undefined) throw new Error(`${text} is no reference`)
  rules.need(reference)
}

describe('where images are fetched from', () => {
  it('is every registry, those of a list, or none', () => {
    expect(() => need(rulesOf({}), 'python')).not.toThrow()
    const some = rulesOf({ registries: ['ghcr.io', '*.example.org', 'h.example:5000'] })
    for (const image of ['ghcr.io/a/b', 'ghcr.io:444/a', 'x.example.org/a', 'h.example:5000/a'])
      expect(() => need(some, image)).not.toThrow()
    for (const image of ['python', 'example.org/a', 'h.example/a', 'ghcr.io.example/a'])
      expect(() => need(some, image)).toThrow('fetches no images from')
  })

  it('is nowhere when the operator says none, whatever a registry is called', () => {
    for (const image of ['python', 'none:5000/a'])
      expect(() => need(rulesOf({ registries: 'none' }), image)).toThrow('fetches no images from')
  })

  it('is no private address, none of the machine and none of its platform', async () => {
    for (const address of ['10.1.2.3', '127.0.0.1', '169.254.169.254', '168.63.129.16', '203.0.113.7', '::1'])
      await expect(rulesOf({}).address(address, 443)).rejects.toMatchObject({ code: 'registry_refused' })
    expect(await rulesOf({}).address('203.0.113.8', 443)).toBe('203.0.113.8')
  })

  it('is what the operator allows beside public addresses, at one port where a port is said', async () => {
    const rules = rulesOf({ allowed: [allowed('10.1.0.0/16'), allowed('127.0.0.1', 5000)] })
    expect(await rules.address('10.1.2.3', 22)).toBe('10.1.2.3')
    expect(await rules.address('127.0.0.1', 5000)).toBe('127.0.0.1')
    await expect(rules.address('127.0.0.1', 6379)).rejects.toMatchObject({ code: 'registry_refused' })
  })

  it('is told with the same words for a name that there is not and for one that leads inside', async () => {
    const toldBy = async (resolve: Resolve): Promise<unknown> =>
      await rulesOf({}, resolve)
        .address('db.inner.example', 443)
        .catch((error: unknown) => error)
    const inside = await toldBy(async () => ['10.1.2.3'])
    expect(inside).toMatchObject({ code: 'registry_refused' })
    expect(await toldBy(noName)).toEqual(inside)
  })

  it('takes that address of a name that is open', async () => {
    expect(await rulesOf({}, async () => ['10.1.2.3', '203.0.113.8']).address('h.example', 443)).toBe('203.0.113.8')
  })
})
