import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { headerRulesOf } from './header-secrets.js'

const environment = (name: string): string | undefined => ({ TOKEN: 't0ken', NOTHING: '' })[name]

it('reads values of headers from files and variables', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-headers-'))
  try {
    const file = join(dir, 'file')
    await writeFile(file, 'of a file\n')
    const given = [
      'host=api.example.org,header=Authorization,scheme=Bearer,env=TOKEN',
      `header=x-key,host=*.example.net,src=${file}`,
      'host=api.example.org,header=x-team,env=TOKEN',
    ]
    expect(await headerRulesOf(given, environment)).toEqual([
      { host: 'api.example.org', headers: { Authorization: 'Bearer t0ken', 'x-team': 't0ken' } },
      { host: '*.example.net', headers: { 'x-key': 'of a file' } },
    ])
    await expect(headerRulesOf([`host=a.b,header=c,src=${dir}/none`], environment)).rejects.toThrow('ENOENT')
  } finally {
    await rm(dir, { recursive: true })
  }
})

it.each([
  ['a value', 'host=a.example,header=authorization,value=hunter2'],
  ['neither variable nor file', 'host=a.example,header=hunter2'],
  ['both', 'host=a.example,header=x,env=TOKEN,src=hunter2'],
  ['a host and a header alone', 'a.example:hunter2'],
])('refuses %s without repeating it', async (_what, given) => {
  const refusal = headerRulesOf([given], environment)
  await expect(refusal).rejects.toThrow('--header-secret: host=HOST')
  await expect(refusal).rejects.not.toThrow('hunter2')
})

it.each(['NOTHING', 'MISSING'])('refuses the variable %s', async (name) => {
  await expect(headerRulesOf([`host=a.example,header=x,env=${name}`], environment)).rejects.toThrow(`${name} is empty`)
})
