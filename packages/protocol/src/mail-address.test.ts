import { describe, expect, it } from 'vitest'
import { isMailAddress } from './mail-address.js'

describe('an address', () => {
  it.each([
    'a@b',
    'first.last+tag@example.org',
    "o'neill@example.org",
    'x!#$%&*/=?^_{}~-@sub.domain.example',
    'Jürgen@exämple.org',
    `${'a'.repeat(64)}@${'b'.repeat(63)}.org`,
  ])('may be %s', (address) => {
    expect(isMailAddress(address)).toBe(true)
  })

  it.each([
    '',
    'a',
    '@b',
    'a@',
    'a@b@c',
    'a b@c',
    'a@b c',
    'a@b\r\nBcc: c@d',
    'a@b\n',
    'a@b,c@d',
    'a@b;c@d',
    'Name <a@b>',
    '<a@b>',
    '"a@evil.example"@b',
    'a(comment)@b',
    'group:a@b;',
    'a@[127.0.0.1]',
    'a@-b',
    'a@b..c',
    '.a@b',
    'a.@b',
    'a..b@c',
    'a@b.',
    'a\u0000@b',
    'a\u200B@b',
    `${'a'.repeat(65)}@b`,
    `a@${'b.'.repeat(130)}org`,
  ])('is not %j', (address) => {
    expect(isMailAddress(address)).toBe(false)
  })
})
