import type { Auth, Capsule, MemberOfTeam, Team } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { Api, type CallOptions, useCapsule, usePlatform } from '../harness/api.js'
import { addPerson, bearer, firstAdmin, logIn, tokenInMail, wrennJson } from '../harness/people.js'

const { platform } = usePlatform()
const capsule = useCapsule()
const anonymous = new Api(platform, '')

/** Calls as somebody who has logged in. */
function caller(auth: Auth) {
  const session = bearer(auth)
  return {
    json: async <T>(method: string, path: string, options: CallOptions = {}) =>
      await anonymous.json<T>(method, path, { ...options, ...session }),
    refusal: async (method: string, path: string, options: CallOptions = {}) =>
      await anonymous.refusal(method, path, { ...options, ...session }),
  }
}

describe('somebody who is invited by mail', () => {
  it('joins with the code of the mail, does what the role allows and no more, and can be made the owner', async () => {
    const ownerAuth = await firstAdmin(platform)
    const { team_id: teamId } = ownerAuth
    const owner = caller(ownerAuth)
    const { id: bobId, email: address } = await addPerson(platform, 'Bob')
    const first = await logIn(platform, address)
    expect(await caller(first).refusal('GET', `/v1/teams/${teamId}`)).toMatchObject({
      status: 404,
      code: 'team_not_found',
    })

    const asOwner = { env: { WRENN_API_KEY: ownerAuth.token ?? '' } }
    await wrennJson(platform, ['team', 'invite', address, '--role', 'viewer'], asOwner)
    const code = await tokenInMail(platform, address, '/invitation')
    const asBob = { env: { WRENN_API_KEY: first.token ?? '' } }
    const joined = await wrennJson<Team>(platform, ['team', 'join', code], asBob)
    expect(joined).toMatchObject({ id: teamId, role: 'viewer' })
    expect(await caller(first).refusal('POST', '/v1/invitations/accept', { json: { token: code } })).toMatchObject({
      code: 'invalid_token',
    })

    const moved = await caller(first).json<Auth>('POST', '/v1/auth/switch-team', { json: { team_id: teamId } })
    const bob = caller(moved)
    expect((await bob.json<Capsule>('GET', capsule().path)).id).toBe(capsule().id)
    const denied = { status: 403, code: 'forbidden' }
    const command = { json: { cmd: 'true' } }
    expect(await bob.refusal('POST', `${capsule().path}/exec`, command)).toMatchObject(denied)
    expect(await bob.refusal('POST', '/v1/api-keys', { json: {} })).toMatchObject(denied)
    const invitation = { json: { email: 'eve@example.com' } }
    expect(await bob.refusal('POST', `/v1/teams/${teamId}/invitations`, invitation)).toMatchObject(denied)
    expect(await bob.refusal('POST', `/v1/teams/${teamId}/transfer`, { json: { user_id: bobId } })).toMatchObject(
      denied,
    )

    await owner.json('PATCH', `/v1/teams/${teamId}/members/${bobId}`, { json: { role: 'member' } })
    expect(await bob.json('POST', `${capsule().path}/exec`, command)).toMatchObject({ exit_code: 0 })

    await owner.json('POST', `/v1/teams/${teamId}/transfer`, { json: { user_id: bobId } })
    const rolesSeen = async () =>
      Object.fromEntries(
        (await bob.json<MemberOfTeam[]>('GET', `/v1/teams/${teamId}/members`)).map(({ email, role }) => [email, role]),
      )
    expect(await rolesSeen()).toMatchObject({ [address]: 'owner', 'ada@example.com': 'admin' })
    // Other tests of this platform rely on who owns the first team.
    await bob.json('POST', `/v1/teams/${teamId}/transfer`, { json: { user_id: ownerAuth.user_id } })
    await owner.json('DELETE', `/v1/teams/${teamId}/members/${bobId}`)
    // His session goes on in a team of his own.
    expect(await bob.refusal('GET', capsule().path)).toMatchObject({ status: 404, code: 'capsule_not_found' })
  })
})
