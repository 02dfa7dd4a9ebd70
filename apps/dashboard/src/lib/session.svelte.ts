import type { ListedTeamInfo, MeInfo, Wrenn } from '@wrenn/sdk'

/** Who uses the page, as the platform last said. Tokens are in cookies that no script can read. */
export class Session {
  me = $state.raw<MeInfo>()
  teams = $state.raw<readonly ListedTeamInfo[]>([])
  readonly team = $derived(this.teams.find(({ isCurrent }) => isCurrent))
  readonly #wrenn: Wrenn

  constructor(wrenn: Wrenn) {
    this.#wrenn = wrenn
  }

  /** Asks who it is, in which team, and what they may do there. */
  async load(): Promise<void> {
    const [me, teams] = await Promise.all([this.#wrenn.account.me(), this.#wrenn.teams.list()])
    this.me = me
    this.teams = teams
  }

  /** Whether the platform would allow it: what it would refuse is not offered. */
  can(permission: string): boolean {
    return this.me?.permissions.includes(permission) ?? false
  }

  /** Whether the platform can do what not every one can. */
  has(feature: string): boolean {
    return this.me?.features.includes(feature) ?? false
  }

  forget(): void {
    this.me = undefined
    this.teams = []
  }
}
