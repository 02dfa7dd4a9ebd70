import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { buildArgsOf, secretsOf } from './build-values.js'

const environment = (name: string): string | undefined => ({ TOKEN: 't', A: 'from outside' })[name]

it('arguments have values of their own, or those of the environment', () => {
  expect(buildArgsOf(['X=1=2', 'A', 'NOTHING', 'EMPTY='], environment)).toEqual({
    X: '1=2',
    A: 'from outside',
    EMPTY: '',
  })
  expect(() => buildArgsOf(['a b=1'], environment)).toThrow('--build-arg')
})

it('secrets are read from files and the environment, and are in no error', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-secret-'))
  try {
    const file = join(dir, 'file')
    await writeFile(file, 'of a file\n')
    const given = [`id=one,src=${file}`, 'id=two,env=TOKEN', 'id=TOKEN', `type=file,id=A,source=${file}`]
    expect(await secretsOf(given, environment)).toEqual({ one: 'of a file\n', two: 't', TOKEN: 't', A: 'of a file\n' })
    await expect(secretsOf(['hunter2'], environment)).rejects.not.toThrow('hunter2')
    await expect(secretsOf(['id=x'], environment)).rejects.toThrow('the environment has no x')
    await expect(secretsOf([`id=x,src=${dir}/none`], environment)).rejects.toThrow('ENOENT')
  } finally {
    await rm(dir, { recursive: true })
  }
})
