import { readFile } from 'node:fs/promises'
import { AppError, isErrno } from '@wrenn/base'
import { type WebSocketConstructor, Wrenn } from '@wrenn/sdk'
import WebSocket from 'ws'
import type { CliConfig } from './config.js'
import { Logins } from './login/logins.js'
import { tokenSource } from './login/tokens.js'
import { createPatientFetch } from './patient-fetch.js'
import { layoutOf } from './up/layout.js'
import { findRunning } from './up/record.js'

/** `ws` types its events more narrowly than the standard; at run time it is what the SDK asks for (see its tests). */
const webSocket: WebSocketConstructor = WebSocket as unknown as WebSocketConstructor

/** Where the platform is: told by the environment, or by the `wrenn up` of this directory, when one runs. */
export async function findApiUrl(config: CliConfig): Promise<string | undefined> {
  if (config.apiUrl) return config.apiUrl
  return (await findRunning(layoutOf(config.dir)).catch(() => undefined))?.apiUrl
}

async function findApiKey(config: CliConfig): Promise<string | undefined> {
  if (config.apiKey) return config.apiKey
  const file = layoutOf(config.dir).apiKeyFile
  try {
    return (await readFile(file, 'utf8')).trim() || undefined // empty: the database has keys, and this file never had the first
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    if (!isErrno(error, 'EACCES')) throw error
    throw new AppError('unauthorized', `You may not read ${file}: set WRENN_API_KEY, or run this as root.`)
  }
}

/** Where commands go. */
export async function apiUrlOf(config: CliConfig): Promise<string> {
  return ((await findApiUrl(config)) ?? `http://127.0.0.1:${config.port}`).replace(/\/+$/, '')
}

/** The logins of whoever runs this. */
export function loginsOf(config: CliConfig): Logins {
  return new Logins(config.loginsFile)
}

/**
 * The platform that commands talk to, with the key of the environment, else with the person's login, else with the platform's first key. Nothing
 * is asked of it yet; a key that is missing is the first call's error.
 * @throws AppError `unauthorized` when the key's file is not readable for this user
 */
export async function connect(config: CliConfig): Promise<Wrenn> {
  const apiUrl = await apiUrlOf(config)
  const fetch = createPatientFetch()
  const logins = loginsOf(config)
  const isLoggedIn = !config.apiKey && (await logins.find(apiUrl)) !== undefined
  const apiKey = isLoggedIn ? tokenSource(logins, apiUrl, fetch) : await findApiKey(config)
  return new Wrenn({ apiUrl, webSocket, fetch, ...(apiKey ? { apiKey } : {}) })
}
