import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { AppError } from '@wrenn/base'
import type { WriteArchiveRequest } from '@wrenn/protocol/host'
import type { FakeCapsule } from './fake-capsule.js'
import { known } from './fake-files.js'

type Usable = (capsuleId: string) => FakeCapsule

/** An archive of what is below the fake capsule's directory, made by this machine's tar. */
export async function* readArchive({ files, use }: FakeCapsule, path: string) {
  const place = files.locate(path)
  if (!existsSync(place)) throw new AppError('file_not_found', `There is no ${path}.`)
  const tar = spawn('tar', ['--create', '--file=-', '--directory', dirname(place), '--', basename(place)])
  const ended = once(tar, 'close')
  let said = ''
  tar.stderr.on('data', (text) => {
    said += text
  })
  try {
    yield { part: { case: 'begin' as const, value: {} } }
    for await (const value of tar.stdout) {
      use.throwIfAborted()
      yield { part: { case: 'chunk' as const, value } }
    }
    const [code] = await ended
    const failure = code === 0 ? {} : { code: 'permission_denied', message: said.trim() }
    yield { part: { case: 'end' as const, value: { notes: said.trim().split('\n').filter(Boolean), ...failure } } }
  } finally {
    tar.kill('SIGKILL')
  }
}

export async function writeArchive(requests: AsyncIterable<WriteArchiveRequest>, usable: Usable) {
  const parts = requests[Symbol.asyncIterator]()
  const first = await parts.next()
  const open = first.done === true ? undefined : first.value.part
  if (open?.case !== 'open') throw new AppError('invalid_request', 'The first message must be `open`.')
  const { files, use } = usable(open.value.capsuleId)
  const place = files.locate(open.value.path)
  await known(open.value.path, () => mkdir(place, { recursive: true }))
  const tar = spawn('tar', ['--extract', '--file=-', '--no-same-owner', '--directory', place])
  const ended = once(tar, 'close')
  tar.stdin.on('error', () => {}) // its exit code tells
  let bytes = 0
  try {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      use.throwIfAborted()
      if (next.value.part.case !== 'chunk') continue
      bytes += next.value.part.value.length
      if (!tar.stdin.write(next.value.part.value)) await Promise.race([once(tar.stdin, 'drain').catch(() => {}), ended])
    }
    tar.stdin.end()
    const [code] = await ended
    if (code !== 0) throw new AppError('invalid_request', 'That is not an archive.')
    return { bytes: BigInt(bytes) }
  } finally {
    tar.kill('SIGKILL')
  }
}
