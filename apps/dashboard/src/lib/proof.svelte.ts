import { WrennError } from '@wrenn/sdk'

/** Where the platform wants a proof of the last minutes that it is really its person: asks for one, and goes on with what they were doing. */
export class Proof {
  /** Whether somebody is being asked. */
  isAsking = $state(false)
  #answer: (isGiven: boolean) => void = () => {}

  /** @throws as `act` does; WrennError `confirmation_needed` when none is given */
  async during<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (error) {
      if (!(error instanceof WrennError && error.code === 'confirmation_needed')) throw error
      if (!(await this.#ask())) throw error
    }
    return await act()
  }

  given(): void {
    this.#end(true)
  }

  /** Also when one was given already. */
  dismissed(): void {
    this.#end(false)
  }

  #ask(): Promise<boolean> {
    this.isAsking = true
    return new Promise((resolve) => {
      this.#answer = resolve
    })
  }

  #end(isGiven: boolean): void {
    this.isAsking = false
    this.#answer(isGiven)
  }
}
