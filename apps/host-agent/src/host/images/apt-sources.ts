import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'

/** One Debian archive as the host's apt knows it. */
export interface AptSource {
  readonly uris: readonly string[]
  readonly suites: readonly string[]
  readonly components: readonly string[]
}

/**
 * The stanzas of apt's configuration that are Debian's own: binary packages, from suites of `release` (`bookworm`,
 * `bookworm-updates`, `bookworm-security`, …), with the component main, and signed by Debian's keyring or by none named.
 */
export function debianSources(files: readonly SourceFile[], release: string): readonly AptSource[] {
  return withSuites(files, (suite) => (isSuiteOf(suite, release) ? suite : undefined))
}

/**
 * The host's mirrors of Debian for another release than its own: the suites of its sources are replaced by those of `release`
 * with the same purpose. Backports and the like have no counterpart.
 */
export function derivedSources(files: readonly SourceFile[], release: string): readonly AptSource[] {
  const derived = withSuites(files, (suite) => {
    const [, name = '', purpose = ''] = /^([a-z]+)((?:-updates|-security|\/updates)?)$/.exec(suite) ?? []
    if (!DEBIAN_RELEASES.has(name)) return undefined
    return `${release}${purpose === '/updates' ? '-security' : purpose}`
  })
  const isComplete = derived.some(({ suites }) => suites.includes(release))
  return isComplete ? derived : []
}

/** Of hosts that may be older or newer than the image. */
const DEBIAN_RELEASES: ReadonlySet<string> = new Set([
  ...['oldoldstable', 'oldstable', 'stable', 'testing', 'unstable', 'sid'],
  ...['buster', 'bullseye', 'bookworm', 'trixie', 'forky', 'duke'],
])

/** Where Debian is for everybody. */
function publicSources(release: string): readonly AptSource[] {
  const components = ['main']
  return [
    { uris: ['http://deb.debian.org/debian'], suites: [release, `${release}-updates`], components },
    { uris: ['http://deb.debian.org/debian-security'], suites: [`${release}-security`], components },
  ]
}

interface SourceFile {
  readonly name: string
  readonly text: string
}

/** Sources of Debian's own packages with the suites that `pick` makes of theirs. */
function withSuites(files: readonly SourceFile[], pick: (suite: string) => string | undefined): readonly AptSource[] {
  return files
    .flatMap(({ name, text }) => (name.endsWith('.sources') ? deb822(text) : oneLine(text)))
    .map((source) => ({ ...source, suites: [...new Set(source.suites.flatMap((suite) => pick(suite) ?? []))] }))
    .filter((source) => source.suites.length > 0 && source.components.includes('main') && source.debianKey)
    .map(({ uris, suites, components }) => ({ uris, suites, components }))
}

interface ParsedSource extends AptSource {
  readonly debianKey: boolean
}

function isSuiteOf(suite: string, release: string): boolean {
  return suite === release || suite.startsWith(`${release}-`) || suite.startsWith(`${release}/`)
}

function isDebianKey(signedBy: string | undefined): boolean {
  return signedBy === undefined || /debian-archive-(\w+-)*keyring\.(gpg|pgp|asc)$/.test(signedBy)
}

function deb822(text: string): readonly ParsedSource[] {
  const withoutComments = text.replace(/^#.*\n?/gm, '')
  return withoutComments.split(/\n\s*\n/).flatMap((stanza) => {
    const fields = stanzaFields(stanza)
    const list = (name: string): readonly string[] => (fields.get(name) ?? '').split(/\s+/).filter(Boolean)
    if (!list('types').includes('deb') || fields.get('enabled') === 'no') return []
    const debianKey = isDebianKey(fields.get('signed-by'))
    return [{ uris: list('uris'), suites: list('suites'), components: list('components'), debianKey }]
  })
}

function stanzaFields(stanza: string): ReadonlyMap<string, string> {
  const unfolded = stanza.replace(/\n[ \t]+/g, ' ')
  const pairs = [...unfolded.matchAll(/^([\w-]+):[ \t]*(.*)$/gm)]
  return new Map(pairs.map((match) => [(match[1] ?? '').toLowerCase(), (match[2] ?? '').trim()]))
}

function oneLine(text: string): readonly ParsedSource[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line)
    const [, options = '', uri, suite, components] = match ?? []
    if (uri === undefined || suite === undefined || components === undefined) return []
    const debianKey = isDebianKey(/signed-by=(\S+)/i.exec(options)?.[1])
    return [{ uris: [uri], suites: [suite], components: components.trim().split(/\s+/), debianKey }]
  })
}

/** Of the package debian-archive-keyring; also in the guest. */
export const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** The same sources as a deb822 file, for mmdebstrap and for the guest's own apt. */
export function renderSources(sources: readonly AptSource[]): string {
  return sources
    .map(({ uris, suites, components }) =>
      [
        'Types: deb',
        `URIs: ${uris.join(' ')}`,
        `Suites: ${suites.join(' ')}`,
        `Components: ${components.join(' ')}`,
        `Signed-By: ${DEBIAN_KEYRING}`,
        '',
      ].join('\n'),
    )
    .join('\n')
}

/**
 * Where this machine would get packages of `release` from: by its own sources of that release, else by the mirrors that it has
 * for another one, else from Debian's public servers.
 */
export async function readHostSources(release: string, etcApt = '/etc/apt'): Promise<readonly AptSource[]> {
  const folder = join(etcApt, 'sources.list.d')
  const names = (await orNothing(readdir(folder), [])).filter((name) => /\.(list|sources)$/.test(name)).sort()
  const paths = [join(etcApt, 'sources.list'), ...names.map((name) => join(folder, name))]
  const files = await Promise.all(
    paths.map(async (path) => ({ name: path, text: await orNothing(readFile(path, 'utf8'), '') })),
  )
  const own = debianSources(files, release)
  if (own.some(({ suites }) => suites.includes(release))) return own
  const derived = derivedSources(files, release)
  return derived.length > 0 ? derived : publicSources(release)
}

async function orNothing<T>(read: Promise<T>, nothing: T): Promise<T> {
  return await read.catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return nothing
    throw error
  })
}
