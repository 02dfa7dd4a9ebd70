/** Somebody who is logged in. */
export interface Person {
  readonly id: string
  readonly email: string
  readonly name: string
}
