import { describe, expect, it } from 'vitest'
import type { MailData, MailKind } from './kinds.js'
import { render } from './layout.js'
import { linksBelow, plainName, showTime } from './letter.js'
import { letters } from './letters/index.js'

const EVIL = `<img src=x onerror="alert('1')">\r\nBcc: victim@example.org\u2028& visit http://evil.example/win`
const AT = '2026-11-28T21:12:00.000Z'
const link = linksBelow('https://wrenn.example/below/')

/** Each kind, with the worst that a person may be called. */
const samples: { readonly [Kind in MailKind]: MailData[Kind] } = {
  activation: { name: EVIL, token: 'the-token', expiresAt: AT },
  'already-registered': { name: EVIL },
  'password-reset': { name: EVIL, token: 'the-token', expiresAt: AT },
  'password-changed': { name: EVIL, at: AT },
  'sign-in-changed': { name: EVIL, what: EVIL, at: AT },
  'deletion-scheduled': { name: EVIL, deletedAt: AT },
  'account-deleted': { name: EVIL },
  invitation: { inviter: EVIL, team: EVIL, role: 'member', token: 'the-token', expiresAt: AT },
  'team-joined': { name: EVIL, team: EVIL, member: EVIL },
  'ownership-received': { name: EVIL, team: EVIL, by: EVIL },
}

function renderKind<Kind extends MailKind>(kind: Kind) {
  return render(letters[kind](samples[kind], link))
}
const kinds = Object.keys(samples).filter((kind): kind is MailKind => kind in letters)

describe.each(kinds)('the mail %s', (kind) => {
  const { subject, text, html } = renderKind(kind)

  it('has one line of subject, a text and HTML that say the same', () => {
    expect(subject).toMatch(/^[^\p{Cc}\u2028\u2029]{10,}$/u)
    const said = html.replaceAll('&#39;', "'").replaceAll('&quot;', '"').replaceAll('&amp;', '&')
    for (const line of text.split('\n')) if (line !== '') expect(said).toContain(line.replace(/:$/, ''))
  })

  it('makes nothing of what people are called: no markup, no header, no link', () => {
    expect(html).not.toMatch(/<img|onerror="|<script/)
    expect(subject + text + html).not.toMatch(/evil\.example|http:\/\//)
    expect(text).not.toMatch(/^bcc/im)
  })

  it('links to this platform alone', () => {
    const hosts = [...`${text}\n${html}`.matchAll(/https?:\/\/[^/\s"<]+/g)].map(([host]) => host)
    expect(new Set(hosts)).toEqual(new Set(hosts.length === 0 ? [] : ['https://wrenn.example']))
    if ('token' in samples[kind]) expect(text).toMatch(/^https:\/\/wrenn\.example\/below\/[a-z-]+#token=the-token$/m)
  })
})

describe('what letters are made of', () => {
  it('names become one bounded line without anything that mail programs make a link of', () => {
    expect(plainName('J.R.R. Tolkien')).toBe('J. R. R. Tolkien')
    expect(plainName('Łukasz O’Neill 漢字')).toBe('Łukasz O’Neill 漢字')
    expect(plainName('a\u0000b\u202Ec\td')).toBe('a b c d')
    expect(plainName('win at www.evil.example/x')).toBe('win at www. evil. example x')
    expect([...plainName('😀'.repeat(500))]).toHaveLength(100)
  })

  it('tokens are escaped in links', () => {
    expect(link('/activate', { token: 'a b&c=d' })).toBe('https://wrenn.example/below/activate#token=a+b%26c%3Dd')
  })

  it('times are in UTC', () => {
    expect(showTime('2026-11-28T23:12:00+02:00')).toBe('28 November 2026, 21:12 UTC')
  })
})
