import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../prepare.mjs'
import { allSteps } from './run.mjs'

const DOCUMENT = join(root, 'docs/machines.md')
const BEGIN = '<!-- results: npm run test:machines -- --record -->'
const END = '<!-- end of results -->'

/** @param {{ outcome: string, seconds: number | undefined } | undefined} step */
function cell(step) {
  if (step === undefined) return 'not run'
  return step.seconds === undefined ? step.outcome : `${step.outcome}, ${step.seconds} s`
}

/** @param {readonly any[]} results */
export function rowsOf(results) {
  const today = new Date().toISOString().slice(0, 10)
  return results.map(({ release, facts, steps }) => {
    const names = allSteps().filter((name) => name !== 'facts')
    const cells = names.map((name) => cell(steps.find((step) => step.name === name)))
    const { machine = release, node = '?', npm = '?', qemu = '?', kernel = '?', cgroup = '?' } = facts
    return `| ${[machine, `${node}, npm ${npm}`, qemu, kernel, cgroup, ...cells, today].join(' | ')} |`
  })
}

function header() {
  const titles = ['machine', 'Node.js', 'QEMU', 'kernel', 'cgroup', ...allSteps().slice(1), 'date']
  return [`| ${titles.join(' | ')} |`, `|${titles.map(() => '---').join('|')}|`]
}

/** @param {readonly any[]} results */
export function tableOf(results) {
  return [...header(), ...rowsOf(results)].join('\n')
}

/**
 * Puts new rows into the document, in place of those of the same machine.
 * @param {readonly any[]} results
 */
export function record(results) {
  const text = existsSync(DOCUMENT) ? readFileSync(DOCUMENT, 'utf8') : `# Machines\n\n${BEGIN}\n${END}\n`
  const [before = '', rest = ''] = text.split(BEGIN)
  const [table = '', after = ''] = rest.split(END)
  const rows = rowsOf(results)
  const first = (row) => row.split('|').slice(1, 4).join('|')
  const replaced = new Set(rows.map(first))
  const kept = table.split('\n').filter((line) => /^\| (?!machine )/.test(line) && !replaced.has(first(line)))
  writeFileSync(DOCUMENT, `${before}${BEGIN}\n${[...header(), ...kept, ...rows].join('\n')}\n${END}${after}`)
}
