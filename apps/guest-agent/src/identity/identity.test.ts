import { describe, expect, it } from 'vitest'
import { Identity } from './identity.js'
import { UserDirectory } from './users.js'

const identity = new Identity(new UserDirectory())
const userOf = (credentials: string) =>
  identity.userOf({ authorization: `Basic ${Buffer.from(credentials).toString('base64')}` })

describe('the user of a call', () => {
  it.each([
    ['root:', 0, 0],
    ['root', 0, 0],
    ['root:a:b', 0, 0],
    ['1234:', 1234, 0],
    ['1234:50:', 1234, 50],
    ['1234:77:x', 1234, 77],
  ])('of %s has its numbers', (credentials, uid, gid) => {
    expect(userOf(credentials)).toMatchObject({ uid, gid })
  })

  it('that there is not is refused', () => {
    expect(() => userOf('nobody-knows:0:')).toThrow('invalid username')
  })
})
