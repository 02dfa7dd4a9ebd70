import * as library from '@simplewebauthn/server'
import type { PasskeyOptions } from '@wrenn/protocol'
import { describe, expect, it, vi } from 'vitest'
import { openDatabase } from '../../store/database.js'
import { Authenticator } from '../../testing/authenticator.js'
import type { UserPrincipal } from '../accounts/index.js'
import { Passkeys } from './passkeys.js'

vi.mock('@simplewebauthn/server', async (original) => {
  const actual = await original<typeof library>()
  return { ...actual, verifyRegistrationResponse: vi.fn(async () => ({ verified: false })) }
})

const origin = 'https://wrenn.example'
const asked = { rp: { id: 'wrenn.example' }, user: { id: 'dXNlcg' }, challenge: 'Y2hhbGxlbmdl' }
const person = { sessionId: 'ses-1' } as UserPrincipal // it reads nothing else

describe('a new passkey', () => {
  it('is not looked at when it tells of its maker: the library would ask whatever addresses its certificates name', async () => {
    const db = openDatabase({ url: 'postgresql://nobody@127.0.0.1:1/none' })
    const passkeys = new Passkeys({ db, publicUrl: origin })
    const make = (attestation: { format: string; x5c?: Uint8Array[] }) =>
      passkeys.verifyNew(
        new Authenticator({ origin }).create(asked as unknown as PasskeyOptions, { attestation }),
        person,
      )
    const looked = vi.mocked(library.verifyRegistrationResponse)
    for (const format of ['apple', 'android-key', 'fido-u2f', 'packed', 'tpm', 'unknown']) {
      await expect(make({ format, x5c: [new Uint8Array(8)] })).rejects.toMatchObject({ code: 'invalid_request' })
    }
    expect(looked).not.toHaveBeenCalled()
    for (const format of ['none', 'packed']) await make({ format }).catch(() => {})
    expect(looked).toHaveBeenCalledTimes(2)
    await db.destroy()
  })
})
