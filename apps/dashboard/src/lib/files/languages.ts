import type { LanguageRegistration } from 'shiki/core'

/** A language that files are shown in colours of. */
export interface Language {
  readonly name: string
  readonly load: () => Promise<{ readonly default: LanguageRegistration[] }>
}

const css: Language = { name: 'css', load: () => import('shiki/langs/css.mjs') }
const docker: Language = { name: 'docker', load: () => import('shiki/langs/docker.mjs') }
const html: Language = { name: 'html', load: () => import('shiki/langs/html.mjs') }
const javascript: Language = { name: 'javascript', load: () => import('shiki/langs/javascript.mjs') }
const shell: Language = { name: 'shellscript', load: () => import('shiki/langs/shellscript.mjs') }
const typescript: Language = { name: 'typescript', load: () => import('shiki/langs/typescript.mjs') }
const yaml: Language = { name: 'yaml', load: () => import('shiki/langs/yaml.mjs') }
const c: Language = { name: 'c', load: () => import('shiki/langs/c.mjs') }

const byEnding: ReadonlyMap<string, Language> = new Map([
  ['bash', shell],
  ['c', c],
  ['cjs', javascript],
  ['css', css],
  ['diff', { name: 'diff', load: () => import('shiki/langs/diff.mjs') }],
  ['go', { name: 'go', load: () => import('shiki/langs/go.mjs') }],
  ['h', c],
  ['htm', html],
  ['html', html],
  ['ini', { name: 'ini', load: () => import('shiki/langs/ini.mjs') }],
  ['js', javascript],
  ['json', { name: 'json', load: () => import('shiki/langs/json.mjs') }],
  ['jsx', javascript],
  ['md', { name: 'markdown', load: () => import('shiki/langs/markdown.mjs') }],
  ['mjs', javascript],
  ['py', { name: 'python', load: () => import('shiki/langs/python.mjs') }],
  ['rs', { name: 'rust', load: () => import('shiki/langs/rust.mjs') }],
  ['sh', shell],
  ['sql', { name: 'sql', load: () => import('shiki/langs/sql.mjs') }],
  ['toml', { name: 'toml', load: () => import('shiki/langs/toml.mjs') }],
  ['ts', typescript],
  ['tsx', typescript],
  ['yaml', yaml],
  ['yml', yaml],
])
const byName: ReadonlyMap<string, Language> = new Map([
  ['.bashrc', shell],
  ['.profile', shell],
  ['Dockerfile', docker],
])

/** By the name of the file; `undefined` for what is shown plainly. */
export function languageOf(name: string): Language | undefined {
  return byName.get(name) ?? byEnding.get(/\.([a-z]+)$/i.exec(name)?.[1]?.toLowerCase() ?? '')
}
