import { type PasskeyJson, WrennError } from '@wrenn/sdk'

/** Browsers have them on pages that come by TLS, or from this machine, and of hosts that have a name. */
export function hasPasskeys(): boolean {
  return 'PublicKeyCredential' in globalThis && !isAddress(location.hostname)
}

/** Of IPv4, or of IPv6, which an address bar has in brackets. */
export function isAddress(hostname: string): boolean {
  return /^(?:\d+(?:\.\d+){3}|\[.*\])$/.test(hostname)
}

/** Has the browser make one. @throws WrennError `passkey_not_used` */
export async function createPasskey(options: PasskeyJson): Promise<PasskeyJson> {
  const { startRegistration } = await import('@simplewebauthn/browser')
  type Options = Parameters<typeof startRegistration>[0]['optionsJSON']
  // The server makes them by the same library.
  return await asked(() => startRegistration({ optionsJSON: options as unknown as Options }))
}

/** Has one sign. @throws WrennError `passkey_not_used` */
export async function signWithPasskey(options: PasskeyJson): Promise<PasskeyJson> {
  const { startAuthentication } = await import('@simplewebauthn/browser')
  type Options = Parameters<typeof startAuthentication>[0]['optionsJSON']
  return await asked(() => startAuthentication({ optionsJSON: options as unknown as Options })) // As above.
}

async function asked(ask: () => Promise<object>): Promise<PasskeyJson> {
  try {
    return { ...(await ask()) }
  } catch (cause) {
    const isThere = cause instanceof Error && cause.name === 'InvalidStateError'
    const sentence = isThere ? 'This device has a passkey for your account already.' : 'No passkey was used.'
    const hint = isThere
      ? 'Sign in with it, or add one of another device.'
      : 'Try again, and let the browser do what it asks about; passkeys are good at the address that they were made at.'
    throw new WrennError(sentence, { code: 'passkey_not_used', hint, cause })
  }
}
