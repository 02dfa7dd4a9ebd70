import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SystemLocale } from './locale.js'

let root: string
let locale: SystemLocale
beforeEach(() => {
  root = `${mkdtempSync(join(tmpdir(), 'locale-'))}/`
  mkdirSync(join(root, 'etc/default'), { recursive: true })
  locale = new SystemLocale(root)
})
afterEach(() => rmSync(root, { recursive: true }))

describe('the language of the system', () => {
  it('is UTF-8 where the image says nothing, or nothing that can be read', () => {
    expect(locale.variables).toEqual({ LANG: 'C.UTF-8' })
    mkdirSync(join(root, 'etc/default/locale'))
    expect(locale.variables).toEqual({ LANG: 'C.UTF-8' })
  })

  it('is what the image says, in each way to write it, and as it says now', () => {
    const file = join(root, 'etc/default/locale')
    writeFileSync(
      file,
      '# comment\nLANG="de_DE.UTF-8"\nexport LC_TIME=\'C\'\nLC_ALL=\nPATH=/evil\n  LANGUAGE=de:en  \n',
    )
    expect(locale.variables).toEqual({ LANG: 'de_DE.UTF-8', LC_TIME: 'C', LANGUAGE: 'de:en' })
    writeFileSync(file, 'LC_CTYPE=C\n')
    expect(locale.variables).toEqual({ LANG: 'C.UTF-8', LC_CTYPE: 'C' })
    rmSync(file)
    writeFileSync(join(root, 'etc/locale.conf'), 'LANG=en_US.UTF-8\n')
    expect(locale.variables).toEqual({ LANG: 'en_US.UTF-8' })
  })
})
