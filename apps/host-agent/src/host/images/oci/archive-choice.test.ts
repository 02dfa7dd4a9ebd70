import { describe, expect, it } from 'vitest'
import { chooseImage } from './archive-choice.js'

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const saved = (...tags: (readonly string[] | null)[]): string =>
  JSON.stringify(tags.map((RepoTags, at) => ({ Config: `${at}.json`, RepoTags, Layers: [] })))
const described = (digit: string, name?: string, architecture?: string) => ({
  ...{ mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digest(digit), size: 1 },
  ...(name === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': name } }),
  ...(architecture === undefined ? {} : { platform: { os: 'linux', architecture } }),
})
const indexOf = (...manifests: object[]): string => JSON.stringify({ schemaVersion: 2, manifests })
const fromDocker = (manifest: string, wanted?: string) => chooseImage({ manifest, index: undefined }, wanted, 'amd64')
/** The manifests of the index that tools get. */
const fromLayout = (index: string, wanted?: string): unknown => {
  const choice = chooseImage({ manifest: undefined, index }, wanted, 'amd64')
  return choice.kind === 'oci' ? JSON.parse(choice.index).manifests : choice
}

describe('of what docker save has written', () => {
  it('the only image is taken, whatever it is called', () => {
    expect(fromDocker(saved(['app:2']))).toEqual({ kind: 'docker', at: 0 })
    expect(fromDocker(saved(null))).toEqual({ kind: 'docker', at: 0 })
  })

  it('one is chosen by any of its names, written in short or in full, or by its place', () => {
    const file = saved(['app:latest', 'ghcr.io/own/app:2'], null, ['docker.io/library/other:1'])
    for (const [wanted, at] of [
      ...[
        ['app', 0],
        ['docker.io/library/app', 0],
        ['ghcr.io/own/app:2', 0],
      ],
      ...[
        ['other:1', 2],
        ['@1', 1],
      ],
    ] as const) {
      expect(fromDocker(file, wanted), wanted).toEqual({ kind: 'docker', at })
    }
  })

  it('none is taken by chance: those that there are are told', () => {
    const file = saved(['app:1'], null, ['a\u001b[31m'])
    expect(() => fromDocker(file)).toThrow('it has 3 images, of which one is to be chosen: app:1, @1, @2.')
    expect(() => fromDocker(file, 'app:2')).toThrow('it has no image app:2, but app:1, @1, @2.')
    const many = saved(...Array.from({ length: 30 }, (_, at) => [`app:${at}`]))
    expect(() => fromDocker(many)).toThrow(/app:9, 20 more\.$/)
    expect(() => fromDocker(saved(['app:1'], ['app:1']), 'app:1')).toThrow(
      'it has 2 images app:1; choose by their places: @0, @1.',
    )
    const same = saved(...Array.from({ length: 30 }, () => ['app:1']))
    expect(() => fromDocker(same, 'app:1')).toThrow(/it has 30 images app:1; .*@9, 20 more\.$/)
  })

  it.each(['', '{}', '[{}]', '[{"Config": 1}]', '[[]]'])('%j is none', (manifest) => {
    expect(() => fromDocker(manifest)).toThrow('not one of docker save')
  })
})

describe('of an OCI layout', () => {
  it('the chosen one alone is in the index that tools get, as it was', () => {
    const image = { ...described('a', 'v1'), artifactType: 'x' }
    expect(fromLayout(indexOf(image, described('b', 'v2')), 'v1')).toEqual([image])
  })

  it('an image with two names is one', () => {
    const file = indexOf(described('a', 'v1'), described('a', 'latest'))
    expect(fromLayout(file)).toEqual([described('a', 'v1')])
    expect(fromLayout(file, 'latest')).toEqual(fromLayout(file, 'v1'))
  })

  it('those of other machines do not count', () => {
    const file = indexOf(described('a', 'v1', 'arm64'), described('b', 'v1', 'amd64'), described('c', 'v1', 'unknown'))
    expect(fromLayout(file, 'v1')).toEqual([described('b', 'v1', 'amd64')])
    expect(() => fromLayout(indexOf(described('a', 'v1', 'arm64')))).toThrow(
      'it is for linux/arm64, and this host is linux/amd64.',
    )
  })

  it('the names of containerd count too', () => {
    const image = { ...described('a'), annotations: { 'io.containerd.image.name': 'docker.io/library/app:2' } }
    expect(fromLayout(indexOf(image, described('b')), 'app:2')).toEqual([image])
  })

  it.each(['', '[]', '{"schemaVersion": 1, "manifests": []}', '{"schemaVersion": 2, "manifests": [{}]}'])(
    '%j is none',
    (index) => {
      expect(() => fromLayout(index)).toThrow('not one of an OCI layout')
    },
  )

  it('nothing is taken of a file that has none', () => {
    expect(() => fromLayout(indexOf())).toThrow('it has no image.')
    expect(() => fromDocker('[]')).toThrow('it has no image.')
    expect(() => chooseImage({ manifest: undefined, index: undefined }, undefined, 'amd64')).toThrow(
      'neither of docker save nor',
    )
  })
})
