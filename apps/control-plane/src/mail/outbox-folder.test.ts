import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Logger, silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createOutboxFolder } from './outbox-folder.js'

const mail = { to: 'somebody@example.org', subject: 'subject', text: 'the secret link', html: '<p>the secret link</p>' }
const idOf = (number: number) => `mail-${String(number).padStart(25, '0')}`
let parent: string
let dir: string

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'wrenn-test-outbox-'))
  dir = join(parent, 'outbox')
})
afterEach(async () => {
  await rm(parent, { recursive: true, force: true })
})

describe('the outbox', () => {
  it('keeps a mail in a file that only its owner may read, and tells the log nothing of what it says', async () => {
    const lines: string[] = []
    const info: Logger['info'] = (...said: unknown[]) => lines.push(JSON.stringify(said))
    const outbox = createOutboxFolder({ dir, from: 'wrenn@wrenn.example', logger: { ...silentLogger, info } })
    await outbox.deliver({ id: idOf(1), ...mail })
    const [name = ''] = await readdir(dir)
    expect(name).toMatch(/^2.*mail-0{24}1\.eml$/)
    expect((await stat(join(dir, name))).mode & 0o777).toBe(0o600)
    expect((await stat(dir)).mode & 0o777).toBe(0o700)
    expect(await readFile(join(dir, name), 'utf8')).toContain('the secret link')
    expect(lines.join()).toContain('somebody@example.org')
    expect(lines.join()).not.toContain('secret')
  })

  it('keeps the newest alone', async () => {
    const outbox = createOutboxFolder({ dir, from: 'wrenn@wrenn.example', logger: silentLogger, maxFiles: 3 })
    for (let number = 0; number < 8; number++) await outbox.deliver({ id: idOf(number), ...mail })
    const kept = (await readdir(dir)).sort()
    expect(kept).toHaveLength(3)
    expect(kept.at(-1)).toContain(idOf(7))
  })
})
