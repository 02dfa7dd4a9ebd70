import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

/**
 * What a browser's `navigator.credentials` takes and gives, as JSON: `PublicKeyCredential.parseCreationOptionsFromJSON` and
 * `parseRequestOptionsFromJSON` read the one, `credential.toJSON()` writes the other.
 */
export type PasskeyJson = Readonly<Record<string, unknown>>

/** A passkey of one's own. */
export interface PasskeyInfo {
  readonly id: string
  readonly name: string
  /** Its owner has it on other devices too, as far as it says. */
  readonly isSynced: boolean
  readonly createdAt: Date
  readonly lastUsedAt: Date | undefined
}

/** What one has beside a password. */
export interface FactorsInfo {
  /** `undefined` without an authenticator app. */
  readonly totpSince: Date | undefined
  /** Oldest first. */
  readonly passkeys: readonly PasskeyInfo[]
  readonly recoveryCodesLeft: number
}

/** What an authenticator app is told, once. */
export interface TotpEnrolment {
  /** Base32, for who types it. */
  readonly secret: string
  /** `otpauth://totp/…`, for a QR code. */
  readonly uri: string
}

/** A passkey that was just added; the first factor comes with recovery codes, which are shown only now. */
export interface AddedPasskey extends PasskeyInfo {
  readonly recoveryCodes: readonly string[] | undefined
}

/**
 * What one proves with who one is, beside a password. All changes but a new name need a login or `account.confirm` of the last 10 minutes, else
 * they throw WrennError `confirmation_needed`; who adds a factor ends all their other sessions.
 */
export class Factors {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  async list(options: CallOptions = {}): Promise<FactorsInfo> {
    const found = await this.#transport.json<wire.Factors>('GET', '/v1/me/factors', options)
    return {
      totpSince: found.totp_since === undefined ? undefined : new Date(found.totp_since),
      passkeys: found.passkeys.map(passkeyInfo),
      recoveryCodesLeft: found.recovery_codes_left,
    }
  }

  /** Begins to add an authenticator app; `confirmTotp` ends it. @throws WrennError `conflict` when there is one */
  async beginTotp(options: CallOptions = {}): Promise<TotpEnrolment> {
    return await this.#transport.json<wire.TotpEnrolment>('POST', '/v1/me/factors/totp', options)
  }

  /**
   * @param code that the app shows
   * @returns recovery codes, shown only now, when this is the first factor
   * @throws WrennError `wrong_code`, `conflict`, `limit_exceeded`
   */
  async confirmTotp(code: string, options: CallOptions = {}): Promise<readonly string[] | undefined> {
    return await this.#codes('/v1/me/factors/totp/confirm', { ...options, json: { code } })
  }

  async removeTotp(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', '/v1/me/factors/totp', options)
  }

  /** Ten new ones, shown only now; those that there were are good no more. @throws WrennError `conflict` for who has no factor */
  async newRecoveryCodes(options: CallOptions = {}): Promise<readonly string[]> {
    return (await this.#codes('/v1/me/factors/recovery-codes', options)) ?? []
  }

  /** What a browser makes a passkey with. @throws WrennError `not_supported` where the platform is reached by an address */
  async passkeyOptions(options: CallOptions = {}): Promise<PasskeyJson> {
    return await this.#transport.json<PasskeyJson>('POST', '/v1/me/factors/passkeys/options', options)
  }

  /** Adds the passkey that a browser has made. @param name for people @throws WrennError `invalid_request`, `conflict` */
  async addPasskey(name: string, credential: PasskeyJson, options: CallOptions = {}): Promise<AddedPasskey> {
    const request = { ...options, json: { name, credential } }
    const added = await this.#transport.json<wire.NewPasskeyInfo>('POST', '/v1/me/factors/passkeys', request)
    return { ...passkeyInfo(added), recoveryCodes: added.recovery_codes }
  }

  async renamePasskey(id: string, name: string, options: CallOptions = {}): Promise<PasskeyInfo> {
    const request = { ...options, json: { name } }
    return passkeyInfo(await this.#transport.json<wire.Passkey>('PATCH', pathOf(id), request))
  }

  async removePasskey(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', pathOf(id), options)
  }

  async #codes(path: string, options: CallOptions & { json?: object }): Promise<readonly string[] | undefined> {
    return (await this.#transport.json<wire.RecoveryCodes>('POST', path, options)).recovery_codes
  }
}

function pathOf(id: string): string {
  return `/v1/me/factors/passkeys/${encodeURIComponent(id)}`
}

function passkeyInfo({ id, name, synced, created_at, last_used }: wire.Passkey): PasskeyInfo {
  return {
    id,
    name,
    isSynced: synced,
    createdAt: new Date(created_at),
    lastUsedAt: last_used === undefined ? undefined : new Date(last_used),
  }
}
