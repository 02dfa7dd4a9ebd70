import { AppError } from '@wrenn/base'
import { asUser, type GuestClient } from './client.js'

const TRUST_TIMEOUT_MS = 30_000

const CERTIFICATE = '/usr/local/share/ca-certificates/wrenn-edge.crt'
const BUNDLE = '/etc/ssl/certs/ca-certificates.crt'

/** What programs read beside, or instead of, the bundle: Node.js, Python's ssl and everything on OpenSSL, requests and pip. */
const ENVIRONMENT = { NODE_EXTRA_CA_CERTS: CERTIFICATE, SSL_CERT_FILE: BUNDLE, REQUESTS_CA_BUNDLE: BUNDLE }

/**
 * Puts a certificate where Debian keeps those of its administrator, so that `update-ca-certificates` keeps it, and into the bundle, in place
 * of what an earlier one left there. Changes nothing where all is so. Works without the package `ca-certificates`.
 */
const SCRIPT = `set -e
umask 022
mkdir -p ${CERTIFICATE.slice(0, CERTIFICATE.lastIndexOf('/'))} /etc/ssl/certs
[ -e ${BUNDLE} ] || : > ${BUNDLE}
block=$(printf '# wrenn-edge begin\n%s\n# wrenn-edge end' "$CERTIFICATE")
now=$(sed -n '/^# wrenn-edge begin$/,/^# wrenn-edge end$/p' ${BUNDLE})
if [ "$block" != "$now" ]; then
  sed '/^# wrenn-edge begin$/,/^# wrenn-edge end$/d' ${BUNDLE} > ${BUNDLE}.wrenn
  printf '%s\n' "$block" >> ${BUNDLE}.wrenn
  mv ${BUNDLE}.wrenn ${BUNDLE}
fi
[ "$CERTIFICATE" = "$(cat ${CERTIFICATE} 2>/dev/null)" ] || printf '%s\n' "$CERTIFICATE" > ${CERTIFICATE}
`

/**
 * Has what is started in the guest from now on trust an authority; what runs, and has read its certificates, does not.
 * @throws AppError when the guest does not answer, or its owner has made the place unusable
 */
export async function trustAuthority(client: GuestClient, cert: string): Promise<void> {
  const process = { cmd: '/bin/sh', args: ['-c', SCRIPT], envs: { CERTIFICATE: cert.trim() } }
  const start = { process, stdin: false, tag: 'wrenn-edge', timeoutMs: TRUST_TIMEOUT_MS, foreground: true }
  for await (const { event } of client.process.start(start, { headers: asUser('root'), timeoutMs: TRUST_TIMEOUT_MS })) {
    if (event?.event.case === 'end' && event.event.value.exitCode !== 0) {
      throw new AppError('guest_error', 'The guest does not let a certificate be added to those that it trusts.')
    }
  }
  const envs = await client.envs()
  if (Object.keys(ENVIRONMENT).every((name) => name in envs)) return
  await client.identify({ envs: { ...ENVIRONMENT, ...envs } }, TRUST_TIMEOUT_MS)
}
