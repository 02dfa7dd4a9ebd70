// Every relative link of a Markdown file must lead to something that exists.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { root, say } from './prepare.mjs'

const listed = spawnSync('git', ['ls-files', '-co', '--exclude-standard', '*.md'], { cwd: root, encoding: 'utf8' })
const files = listed.stdout.split('\n').filter(Boolean)
const broken = []
for (const file of files) {
  const text = readFileSync(join(root, file), 'utf8').replace(/```[\s\S]*?```/g, '')
  for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^(https?:|mailto:|#)/.test(target)) continue
    if (!existsSync(join(root, dirname(file), target.split('#')[0] ?? ''))) broken.push(`${file}: ${target}`)
  }
}
for (const link of broken) say(`broken link in ${link}`)
say(`${files.length} documents checked, ${broken.length} broken links`)
process.exit(broken.length === 0 ? 0 : 1)
