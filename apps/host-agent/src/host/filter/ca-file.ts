import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { AppError, errorText } from '@wrenn/base'

const CERTIFICATE = /-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs

/** @throws AppError `invalid_config` for a file without certificates, or with one that nobody can read: the filter could not start with it */
export async function requireCertificates(path: string): Promise<void> {
  try {
    const found = (await readFile(path, 'utf8')).match(CERTIFICATE) ?? []
    if (found.length === 0) throw new Error('it has no certificate')
    for (const pem of found) new X509Certificate(pem)
  } catch (error) {
    const message = `WRENN_EGRESS_CA_FILE must be a file of certificates as PEM, ${path} is none: ${errorText(error)}.`
    throw new AppError('invalid_config', message, { cause: error })
  }
}
