/** In the place of `@wrenn/sdk`, which would be more than all else: nothing of what is painted first asks or fails. */
export class Wrenn {}
export class WrennError extends Error {}
export class CapsuleNotFoundError extends WrennError {}
export const nextState = (): undefined => undefined
