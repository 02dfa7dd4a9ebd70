import { describe, expect, it } from 'vitest'
import { parseImageConfig, parseManifest } from './manifest.js'

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const configOf = (config: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({ os: 'linux', architecture: 'amd64', config })

describe('the manifest of an image', () => {
  it('says how large its layers are', () => {
    const layers = [1, 2].map((size) => ({ digest: digest('a'), size }))
    const raw = JSON.stringify({ schemaVersion: 2, config: { digest: digest('b'), size: 9 }, layers })
    expect(parseManifest(raw, 'amd64')).toEqual({ kind: 'image', layerBytes: 3 })
  })

  it('leads from an index to the one for this machine', () => {
    const manifests = ['arm64', 'amd64'].map((architecture, at) => ({
      ...{ digest: digest(String(at)), size: 1 },
      platform: { os: 'linux', architecture },
    }))
    expect(parseManifest(JSON.stringify({ manifests }), 'amd64')).toMatchObject({ kind: 'index', ours: digest('1') })
    expect(parseManifest(JSON.stringify({ manifests }), 's390x')).toEqual({
      ...{ kind: 'index', ours: undefined },
      offered: ['linux/arm64', 'linux/amd64'],
    })
  })

  it.each(['', '[]', '{"schemaVersion": 1}'])('is none: %j', (raw) => {
    expect(() => parseManifest(raw, 'amd64')).toThrow('neither of Docker')
  })
})

describe('the config of an image', () => {
  it('says how it is run, and what it does not say is empty', () => {
    expect(parseImageConfig(configOf({ Env: ['A=b'], Cmd: null }), 'amd64')).toEqual({
      ...{ env: ['A=b'], user: '', workingDir: '', entrypoint: [], command: [], ports: [] },
    })
  })

  it('says what is run, and what that serves', () => {
    const said = {
      Entrypoint: ['/in', ''],
      Cmd: ['a b'],
      ExposedPorts: { '80/tcp': {}, '53/udp': {}, '443': {}, '0/tcp': {}, x: {} },
    }
    const { entrypoint, command, ports } = parseImageConfig(configOf(said), 'amd64')
    expect({ entrypoint, command, ports }).toEqual({ entrypoint: ['/in', ''], command: ['a b'], ports: [443, 80] })
  })

  it.each([
    ['variables', { Env: Array.from({ length: 1_001 }, () => 'A=b') }, 'config.Env'],
    ['words of its command', { Cmd: Array.from({ length: 1_001 }, () => 'a') }, 'config.Cmd'],
    ['bytes in a variable', { Env: [`A=${'b'.repeat(131_072)}`] }, 'config.Env'],
    ['bytes in a path', { WorkingDir: '/a'.repeat(3_000) }, 'config.WorkingDir'],
  ])('has no end of %s', (_, config, where) => {
    expect(() => parseImageConfig(configOf(config), 'amd64')).toThrow(where)
  })

  it('is of this machine', () => {
    expect(() => parseImageConfig(configOf({}), 'arm64')).toThrow('It is for linux/amd64')
  })
})
