// Each variable of the services' and the command line's environment has its row in docs/configuration.md, with its default, and no other has one.
import { readFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { environment as cli } from '../apps/cli/src/config.ts'
import { environment as controlPlane } from '../apps/control-plane/src/config.ts'
import { environment as hostAgent } from '../apps/host-agent/src/config.ts'
import { root, say } from './prepare.mjs'

const FILE = 'docs/configuration.md'
/** Read by name beside the schemas: each provider has its own. */
const others = { WRENN_OAUTH_GITHUB_CLIENT_ID: '–', WRENN_OIDC_PROVIDERS: '–' }
const wanted = { ...defaultsOf(cli), ...defaultsOf(hostAgent), ...defaultsOf(controlPlane), ...others }

const text = readFileSync(join(root, FILE), 'utf8')
const rows = [...text.matchAll(/^\| `([A-Z_]+)` \| (?:`([^`]+)`|(–)) \|/gm)]
const told = Object.fromEntries(rows.map(([, name, value, none]) => [name, value ?? none]))

const problems = []
for (const [name, value] of Object.entries(wanted)) {
  if (told[name] === undefined) problems.push(`${name} has no row`)
  else if (told[name] !== value) problems.push(`${name} is ${value} when it is not set, not ${told[name]}`)
}
for (const name of Object.keys(told)) {
  if (wanted[name] === undefined) problems.push(`${name} is a setting of nothing`)
}
const names = rows.map(([, name]) => name)
for (const name of names.filter((each, at) => names.indexOf(each) !== at)) problems.push(`${name} has two rows`)
for (const problem of problems) say(`${FILE}: ${problem}`)
say(`${rows.length} settings checked, ${problems.length} not as they are`)
process.exit(problems.length === 0 ? 0 : 1)

/** What each variable is when it is not set; files beside the programs are told of in words. */
function defaultsOf({ shape }) {
  const defaultOf = (field) => {
    const value = field.safeParse(undefined).data
    const isNone = value === undefined || value.length === 0
    return isNone || (isAbsolute(String(value)) && String(value).startsWith(root)) ? '–' : String(value)
  }
  return Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, defaultOf(field)]))
}
