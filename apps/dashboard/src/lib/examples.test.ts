import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { uploadExamples } from './examples.js'

const ORIGIN = 'http://127.0.0.1:8000'

/** What a shell makes of the last word of a command. */
function lastWordOf(command: string): string {
  return execFileSync('sh', ['-c', `set -- ${command}; for last do :; done; printf %s "$last"`]).toString()
}

describe('examples of uploads', () => {
  it('name the folder to a shell, a program and a server as it is called, whatever that is', () => {
    for (const folder of [
      '/root',
      '/',
      "/root/it's",
      '/root/$(id)`id`',
      "/root/'; echo gone; '",
      '/root/a b\nc',
      '/root/\u0015id\r\\\u0085é',
    ]) {
      const path = `${folder === '/' ? '' : folder}/data.csv`
      const [cli, sdk, curl] = uploadExamples(ORIGIN, 'cl-1', folder)
      expect(lastWordOf(cli?.text ?? '')).toBe(`cl-1:${path}`)
      expect(cli?.text).not.toMatch(/\p{Cc}/u)
      expect(JSON.parse(/write\((".*"), '/.exec(sdk?.text ?? '')?.[1] ?? '')).toBe(path)
      expect(new URL(lastWordOf(curl?.text ?? '')).searchParams.get('path')).toBe(path)
    }
  })
})
