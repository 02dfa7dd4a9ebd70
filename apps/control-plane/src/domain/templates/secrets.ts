import { AppError } from '@wrenn/base'
import type { BuildPlan } from '../../store/schema.js'
import type { Keyring } from '../secrets/index.js'

/** Secrets of a build as its plan keeps them until it ends. @throws AppError `not_supported` without a key */
export function sealSecrets(
  keyring: Keyring,
  buildId: string,
  secrets: Readonly<Record<string, string>>,
): Record<string, string> {
  const sealed = Object.entries(secrets).map(([id, value]) => [id, keyring.seal(value, contextOf(buildId, id))])
  return Object.fromEntries(sealed)
}

/** The value of a secret of a build. @throws AppError `build_failed` when it was not given */
export function openSecret(keyring: Keyring, buildId: string, { secrets = {} }: BuildPlan, id: string): string {
  const sealed = Object.hasOwn(secrets, id) ? secrets[id] : undefined
  if (sealed === undefined) throw new AppError('build_failed', `The secret ${id} was not given.`)
  return keyring.open(sealed, contextOf(buildId, id)).text
}

function contextOf(buildId: string, id: string): string {
  return `build:${buildId}:${id}`
}
