/** By what a team's states are encrypted. */
export interface StoreKey {
  /** Names the team and the key. */
  readonly id: string
  readonly key: Buffer
}

/** Where states go that leave their host: of one team. Whatever is in it under an id is whole. */
export interface Vault {
  /** @throws AppError as the store answers; the signal's reason */
  has(id: string, signal: AbortSignal): Promise<boolean>
  /** @throws AppError as the store answers; the signal's reason */
  save(
    id: string,
    files: readonly { readonly name: string; readonly path: string }[],
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly bytes: number; readonly sentBytes: number }>
  /** Writes the files into a folder, where they survive a power loss when this returns. @throws AppError as the store answers; the signal's reason */
  load(
    id: string,
    folder: string,
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly fetchedBytes: number }>
  /** How a guest runs before its memory is here; absent where this host cannot do that. */
  readonly lazily?: LazyVault
}

/** A state is there at once but for its memory, which comes while a guest runs on it. */
export interface LazyVault {
  /** As `load`, with an empty memory, which is worth nothing before `start`. */
  load(
    id: string,
    folder: string,
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly fetchedBytes: number }>
  /** The memory in a folder can be mapped when this returns, until it is whole or broken. @throws AppError `engine_failure` */
  start(id: string, folder: string): Promise<void>
}

/** Opens what a team has in the store. @throws AppError `not_supported` where there is no store */
export type OpenVault = (key: StoreKey) => Promise<Vault>
