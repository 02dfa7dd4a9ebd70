import { createPrivateKey, X509Certificate } from 'node:crypto'
import { AppError, errorText } from './errors.js'

/** A certificate, with what leads to its root, and its key, as PEM. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

/**
 * TLS itself takes empty files, and then agrees with nobody. `names` are what whoever set them knows them by.
 * @throws AppError `invalid_config` for what is no PEM, or when the key is another certificate's
 */
export function requireFitting({ cert, key }: KeyPair, names: KeyPair): void {
  let isFitting: boolean
  try {
    isFitting = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch (cause) {
    throw new AppError('invalid_config', `${names.cert} or ${names.key} is not a PEM file: ${errorText(cause)}.`)
  }
  if (!isFitting) throw new AppError('invalid_config', `${names.key} is not the key of ${names.cert}.`)
}
