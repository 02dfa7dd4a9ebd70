const NAME = /^[A-Za-z0-9-]{1,128}$/

/** What the marks of all teams begin with. */
export const DAMAGED = 'damaged/'

/** Keys of a team's objects. */
export class StatePlaces {
  readonly #team: string
  /** What all marks of damaged chunks begin with. */
  readonly marks: string

  /** @param team its id; letters, digits and `-` */
  constructor(team: string) {
    this.#team = `teams/${needName(team)}`
    this.marks = `${DAMAGED}${team}/`
  }

  /** What all manifests begin with. */
  get manifests(): string {
    return `${this.#team}/states/`
  }

  /** What all chunks begin with. */
  get chunks(): string {
    return `${this.#team}/chunks/`
  }

  manifest(state: string): string {
    return this.manifests + needName(state)
  }

  /** @param id of a chunk, in hexadecimal digits, or the name of a state */
  mark(id: string): string {
    return this.marks + id
  }

  chunk(id: Buffer): string {
    return this.chunks + id.toString('hex')
  }
}

function needName(name: string): string {
  if (!NAME.test(name)) throw new Error(`"${name}" can be no part of a key: letters, digits and "-" can`)
  return name
}
