import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { z } from 'zod'

/** Where the shell lies in a pack: the one page that all addresses of the dashboard begin with. */
const SHELL_PATH = '/index.html'

/** A build of the dashboard in one file, which `scripts/dashboard.mjs` writes: it is there as a whole or not at all. */
const packSchema = z.object({
  files: z.array(
    z.object({
      path: z.string().startsWith('/'),
      type: z.string(),
      /** Base64, as the two others, which are there where they are smaller. */
      body: z.base64(),
      br: z.base64().optional(),
      gzip: z.base64().optional(),
    }),
  ),
})

/** Codings of a body, the one that is sent rather than the next first. */
const codings = ['br', 'gzip'] as const
export type Coding = (typeof codings)[number]

/** A file of the dashboard, in memory. */
export interface DashboardFile {
  readonly type: string
  readonly body: Buffer
  readonly coded: Readonly<Partial<Record<Coding, Buffer>>>
}

/** The dashboard as it is served. A path leads to a file by being its name, so none leads elsewhere. */
export interface Dashboard {
  readonly shell: DashboardFile
  /** Of the shell: what it may load and run, and that no page may show it in a frame. */
  readonly contentSecurityPolicy: string
  readonly files: ReadonlyMap<string, DashboardFile>
}

/** Reads a pack; `undefined` when there is none, as before a build. @throws Error for what is no pack */
export async function readDashboard(file: string): Promise<Dashboard | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  const pack = packSchema.parse(JSON.parse(text))
  const files = new Map(pack.files.map(({ path, ...file }) => [path, decoded(file)]))
  const shell = files.get(SHELL_PATH)
  if (shell === undefined) throw new Error(`${file} has no ${SHELL_PATH}`)
  files.delete(SHELL_PATH)
  return { shell, files, contentSecurityPolicy: policyFor(shell.body.toString()) }
}

function decoded({ type, body, ...coded }: Omit<z.infer<typeof packSchema>['files'][number], 'path'>): DashboardFile {
  const bodies: Partial<Record<Coding, Buffer>> = {}
  for (const coding of codings) {
    const text = coded[coding]
    if (text !== undefined) bodies[coding] = Buffer.from(text, 'base64')
  }
  return { type, body: Buffer.from(body, 'base64'), coded: bodies }
}

/** Of the codings that a file has, the first that the client takes (RFC 9110 §12.5.3); weights between them do not matter to us. */
export function chooseCoding({ coded }: DashboardFile, accepted = ''): Coding | undefined {
  const taken = new Map<string, boolean>()
  for (const part of accepted.toLowerCase().split(',')) {
    const [name = '', ...parameters] = part.split(';').map((piece) => piece.trim())
    taken.set(name, !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter)))
  }
  return codings.find((coding) => coded[coding] !== undefined && (taken.get(coding) ?? taken.get('*') ?? false))
}

/** Scripts in the shell run by their hashes; nothing else that is written into a page does. */
function policyFor(html: string): string {
  const inline = [...html.matchAll(/<script(?:\s[^>]*)?>([\s\S]*?)<\/script>/g)].flatMap(([, script]) => script || [])
  const hashes = inline.map((script) => `'sha256-${createHash('sha256').update(script).digest('base64')}'`)
  return [
    "default-src 'none'",
    `script-src 'self' ${hashes.join(' ')}`.trimEnd(),
    "style-src 'self'",
    "font-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ')
}
