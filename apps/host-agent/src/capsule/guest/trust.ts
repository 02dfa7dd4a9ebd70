import { AppError } from '@wrenn/base'
import { asUser, type GuestClient } from './client.js'

const TRUST_TIMEOUT_MS = 10_000

const CERTIFICATE = '/usr/local/share/ca-certificates/wrenn-edge.crt'
const BUNDLE = '/etc/ssl/certs/ca-certificates.crt'
/** Where others than Debian have theirs. */
const OTHER_BUNDLES = ['/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem']
/** The script's exit code where nothing else is trusted by the bundle. */
const ALONE = 3

/** What programs read beside the bundle: Node.js. */
const BESIDE = { NODE_EXTRA_CA_CERTS: CERTIFICATE }
/** What they read instead of what they would: Python's ssl and everything on OpenSSL, requests and pip. */
const INSTEAD = { SSL_CERT_FILE: BUNDLE, REQUESTS_CA_BUNDLE: BUNDLE }

/**
 * Puts a certificate where Debian keeps those of its administrator, so that `update-ca-certificates` keeps it, and into the bundle, in place
 * of what an earlier one left there. Changes nothing where all is so. Works without the package `ca-certificates`.
 * @param root what paths begin with, for tests
 */
export function trustScript(root = ''): string {
  const [certificate, bundle] = [`${root}${CERTIFICATE}`, `${root}${BUNDLE}`]
  return `set -e
umask 022
mkdir -p ${root}/usr/local/share/ca-certificates ${root}/etc/ssl/certs
if [ ! -e ${bundle} ]; then
  for other in ${OTHER_BUNDLES.map((path) => `${root}${path}`).join(' ')}; do
    if [ -s $other ]; then cat $other > ${bundle}; break; fi
  done
fi
[ -e ${bundle} ] || : > ${bundle}
block=$(printf '# wrenn-edge begin\n%s\n# wrenn-edge end' "$CERTIFICATE")
now=$(sed -n '/^# wrenn-edge begin$/,/^# wrenn-edge end$/p' ${bundle})
if [ "$block" != "$now" ]; then
  sed '/^# wrenn-edge begin$/,/^# wrenn-edge end$/d' ${bundle} > ${bundle}.wrenn.$$
  printf '%s\n' "$block" >> ${bundle}.wrenn.$$
  mv ${bundle}.wrenn.$$ ${bundle}
fi
[ "$CERTIFICATE" = "$(cat ${certificate} 2>/dev/null)" ] || printf '%s\n' "$CERTIFICATE" > ${certificate}
case $(sed '/^# wrenn-edge begin$/,/^# wrenn-edge end$/d' ${bundle}) in
  *'BEGIN CERTIFICATE'*) ;;
  *) exit ${ALONE} ;;
esac
`
}

/**
 * Has what is started in the guest from now on trust an authority; what runs, and has read its certificates, does not. Where the image
 * has no certificates of its own, programs keep those that they bring along.
 * @throws AppError when the guest does not answer in time, or its owner has made the place unusable
 */
export async function trustAuthority(client: GuestClient, cert: string): Promise<void> {
  const wanted = (await addCertificate(client, cert)) ? { ...BESIDE, ...INSTEAD } : BESIDE
  const envs = await client.envs()
  if (Object.keys(wanted).every((name) => name in envs)) return
  await client.identify({ envs: { ...wanted, ...envs } }, TRUST_TIMEOUT_MS)
}

/** @returns whether it stands beside others */
async function addCertificate(client: GuestClient, cert: string): Promise<boolean> {
  const process = { cmd: '/bin/sh', args: ['-c', trustScript()], envs: { CERTIFICATE: cert.trim() } }
  const start = { process, stdin: false, tag: 'wrenn-edge', timeoutMs: TRUST_TIMEOUT_MS, foreground: true }
  let exitCode: number | undefined
  for await (const { event } of client.process.start(start, { headers: asUser('root'), timeoutMs: TRUST_TIMEOUT_MS })) {
    if (event?.event.case === 'end') exitCode = event.event.value.exitCode
  }
  if (exitCode === 0 || exitCode === ALONE) return exitCode === 0
  throw new AppError('guest_error', 'The guest does not let a certificate be added to those that it trusts.')
}
