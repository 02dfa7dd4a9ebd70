import type { AuditEntry, AuditPage, ListedTeam, NewApiKey } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

let platform: Platform
let teamId: string

beforeAll(async () => {
  platform = await startPlatform()
  const [team] = await json<ListedTeam[]>(await platform.call('GET', '/v1/teams'), 200)
  teamId = team?.id ?? ''
  expect(team?.audit_data_access).toBe(false)
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const setAudit = async (isOn: boolean): Promise<void> => {
  const answer = await platform.call('PATCH', `/v1/teams/${teamId}`, { audit_data_access: isOn })
  expect(answer.status, await answer.text()).toBe(204)
}

async function entriesOf(id: string): Promise<AuditEntry[]> {
  const page = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${id}&limit=200`), 200)
  return page.items.reverse().filter(({ action }) => !/\.(create|destroy|update)$/.test(action))
}

/** What was noted of a capsule, once all of `wanted` is there. */
async function noted(id: string, wanted: readonly string[]): Promise<AuditEntry[]> {
  const told = async () => (await entriesOf(id)).map(({ action, outcome }) => `${action} ${outcome}`)
  await expect.poll(told).toEqual(wanted)
  return await entriesOf(id)
}

const exec = (id: string, body: object) => platform.call('POST', `/v1/capsules/${id}/exec`, body)

describe('commands and file operations in the audit trail', () => {
  it('are not there unless the team wants them, and from the change on when it does', async () => {
    const { id } = await platform.create()
    await json(await exec(id, { cmd: 'true' }), 200)
    await setAudit(true)
    await json(await exec(id, { cmd: 'echo', args: ['second'] }), 200)
    const [begun] = await noted(id, ['capsule.exec accepted', 'capsule.exec success'])
    expect(begun?.details.command).toBe('["echo","second"]')
    const page = await platform.call('GET', `/v1/audit-logs?action=team.set_audit`)
    expect((await json<AuditPage>(page, 200)).items[0]).toMatchObject({
      scope: 'admin',
      details: { data_access: 'on' },
    })
  })

  it('tell who, which command, how it ended, how long it took and how much it wrote, and no environment', async () => {
    await setAudit(true)
    const { id } = await platform.create()
    const made = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { name: 'worker' }), 201)
    const body = { cmd: '/bin/sh', args: ['-c', 'echo out; exit 3'], envs: { TOKEN: 'very secret' }, stdin: 'typed' }
    const ran = await platform.call('POST', `/v1/capsules/${id}/exec`, body, { 'x-api-key': made.key })
    const requestId = ran.headers.get('x-request-id')
    const result = await json<{ exit_code: number; stdout: string }>(ran, 200)
    const entries = await noted(id, ['capsule.exec accepted', 'capsule.exec success'])
    for (const each of entries) {
      expect(each).toMatchObject({ actor_type: 'key', actor_id: made.id, actor_name: 'worker', request_id: requestId })
      expect(each.details.command).toBe('["/bin/sh","-c","echo out; exit 3"]')
    }
    expect(entries[1]?.details).toMatchObject({
      exit_code: String(result.exit_code),
      output_bytes: String(Buffer.byteLength(result.stdout)),
      duration_ms: expect.stringMatching(/^\d+$/),
    })
    expect(JSON.stringify(entries)).not.toMatch(/very secret|typed/)
  })

  it('say of a command in the background that nobody waited for its end, and of one that cannot be started why', async () => {
    await setAudit(true)
    const { id } = await platform.create()
    await json(await exec(id, { cmd: 'sleep', args: ['1'], background: true }), 202)
    const refused = await exec(id, { cmd: 'true', cwd: '/nowhere' })
    const failed = refused.ok ? [] : ['capsule.exec accepted', 'capsule.exec failure']
    const wanted = ['capsule.exec accepted', 'capsule.exec success', ...failed]
    const entries = await noted(id, wanted)
    expect(entries[1]?.details).toMatchObject({ detached: 'true' })
    expect(entries[1]?.details.exit_code).toBeUndefined()
  })

  it('come from WebSockets too, terminals among them', async () => {
    await setAudit(true)
    const { id } = await platform.create()
    const socket = platform.open(`/v1/capsules/${id}/exec/stream`)
    await socket.send({ type: 'start', cmd: 'echo', args: ['hi'] })
    await socket.until('exit')
    await noted(id, ['capsule.exec accepted', 'capsule.exec success'])
    const terminal = platform.open(`/v1/capsules/${id}/pty`)
    await terminal.send({ type: 'start', cmd: '/bin/sh' })
    await terminal.until('started')
    terminal.raw.close()
    const entries = await noted(id, [
      'capsule.exec accepted',
      'capsule.exec success',
      'capsule.open_terminal accepted',
      'capsule.open_terminal success',
    ])
    expect(entries[2]?.details.command).toContain('/bin/sh')
    expect(entries[3]?.details).toMatchObject({ detached: 'true' })
  })

  it('tell which files were read and written and how many bytes, never what was in them', async () => {
    await setAudit(true)
    const { id } = await platform.create()
    const files = `/v1/capsules/${id}/files`
    const put = await fetch(`${platform.url}${files}?path=/root/a.txt`, {
      method: 'PUT',
      headers: { 'x-api-key': platform.key },
      body: 'what is in it',
    })
    expect(put.status, await put.text()).toBe(200)
    const got = await platform.call('GET', `${files}?path=/root/a.txt`)
    expect(await got.text()).toBe('what is in it')
    await json(await platform.call('POST', `${files}/list`, { path: '/root', depth: 1 }), 200)
    const move = { source: '/root/a.txt', destination: '/root/b.txt' }
    await json(await platform.call('POST', `${files}/move`, move), 200)
    expect((await platform.call('POST', `${files}/read`, { path: '/root/a.txt' })).status).toBe(404)
    expect((await platform.call('POST', `${files}/remove`, { path: '/root/b.txt' })).status).toBe(204)
    const entries = await noted(id, [
      'capsule.write_file success',
      'capsule.read_file success',
      'capsule.list_files success',
      'capsule.move_file success',
      'capsule.read_file failure',
      'capsule.remove_file success',
    ])
    const [written, read, , moved, missed] = entries.map(({ details }) => details)
    expect(written).toMatchObject({ path: '/root/a.txt', bytes: '13' })
    expect(read).toMatchObject({ path: '/root/a.txt', bytes: '13' })
    expect(moved).toMatchObject(move)
    expect(missed).toMatchObject({ path: '/root/a.txt', error: 'file_not_found' })
    expect(JSON.stringify(entries)).not.toContain('what is in it')
  })

  it('are heard of by every control plane, lost by no stop, and part of the chain', async () => {
    await setAudit(false)
    const { id } = await platform.create()
    const replica = await startReplica(platform)
    try {
      const headers = { 'x-api-key': platform.key, 'content-type': 'application/json' }
      const run = (cmd: string) =>
        fetch(`${replica.url}/v1/capsules/${id}/exec`, { method: 'POST', headers, body: JSON.stringify({ cmd }) })
      await json(await run('false'), 200)
      await setAudit(true)
      await expect
        .poll(async () => {
          await json(await run('id'), 200)
          return (await entriesOf(id)).some(({ details }) => details.command === '["id"]')
        })
        .toBe(true)
      await json(await run('last'), 200)
    } finally {
      await replica[Symbol.asyncDispose]()
    }
    const commands = (await entriesOf(id)).map(({ details }) => details.command)
    expect(commands.at(-1)).toBe('["last"]')
    expect(commands).not.toContain('["false"]')
    const lines = (await (await platform.call('GET', '/v1/audit-logs/export')).text()).trimEnd().split('\n')
    const trail = lines.map((line): AuditEntry => JSON.parse(line))
    expect(trail.filter(({ resource_id }) => resource_id === id).map(({ details }) => details.command)).toContain(
      '["last"]',
    )
    for (const [index, entry] of trail.entries()) {
      expect(entry.seq).toBe(index + 1)
      if (index > 0) expect(entry.prev_hash).toBe(trail[index - 1]?.hash)
    }
  })

  it('leave out what another team asks of a capsule that it does not have', async () => {
    await setAudit(true)
    const { id } = await platform.create()
    const missing = 'cl-0000000000000000000000000'
    expect((await exec(missing, { cmd: 'true' })).status).toBe(404)
    expect((await platform.call('POST', `/v1/capsules/${missing}/files/list`, { path: '/' })).status).toBe(404)
    await json(await exec(id, { cmd: 'true' }), 200)
    await noted(id, ['capsule.exec accepted', 'capsule.exec success'])
    expect(await entriesOf(missing)).toEqual([])
  })

  it('are refused to be switched by who may not', async () => {
    const made = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { name: 'k', scopes: ['capsules'] }),
      201,
    )
    const asked = { audit_data_access: false }
    const answer = await platform.call('PATCH', `/v1/teams/${teamId}`, asked, { 'x-api-key': made.key })
    expect(answer.status).toBe(403)
    expect((await platform.call('PATCH', `/v1/teams/${teamId}`, { audit_data_access: 'yes' })).status).toBe(400)
  })
})
