import { readFile } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'
import type { Layout } from './layout.js'

/** How the first account is made in a browser. */
export interface SetUpLink {
  /** Has the code, in the fragment, which browsers send to no server: whoever follows it first has the platform. */
  readonly url: string
  /** For root's shell, which prints the same; good for logs. */
  readonly command: string
}

/** `undefined` once somebody has an account, or where the page is not of this platform's own control plane. */
export async function readSetUpLink({ setUpFile }: Layout, publicUrl: string): Promise<SetUpLink | undefined> {
  const page = `${publicUrl.replace(/\/+$/, '').replace('//127.0.0.1:', '//localhost:')}/setup#code=`
  const code = await readCode(setUpFile)
  if (code === '') return undefined
  return { url: page + code, command: `echo "${page}$(cat '${setUpFile.replaceAll("'", `'\\''`)}')"` }
}

async function readCode(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return ''
    throw error
  }
}
