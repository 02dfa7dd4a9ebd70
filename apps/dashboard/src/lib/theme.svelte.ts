/** What the person has chosen; `system` follows the machine's own setting, also while the page is open. */
export const themeChoices = ['system', 'dark', 'light'] as const
export type ThemeChoice = (typeof themeChoices)[number]

/** Also read by the script in app.html, before anything is painted. */
const STORED_AS = 'wrenn.theme'

/** The colours of the page. */
export class Theme {
  choice = $state<ThemeChoice>('system')
  #isSystemLight = $state(false)
  readonly shown = $derived(this.choice === 'system' ? (this.#isSystemLight ? 'light' : 'dark') : this.choice)

  readonly #storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>

  constructor(storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>, system: MediaQueryList) {
    this.#storage = storage
    this.choice = themeOf(storage.getItem(STORED_AS))
    this.#isSystemLight = system.matches
    system.addEventListener('change', ({ matches }) => {
      this.#isSystemLight = matches
    })
  }

  choose(choice: ThemeChoice): void {
    this.choice = choice
    if (choice === 'system') this.#storage.removeItem(STORED_AS)
    else this.#storage.setItem(STORED_AS, choice)
  }
}

/** What was stored, if it is one of ours. */
export function themeOf(stored: string | null): ThemeChoice {
  return themeChoices.find((choice) => choice === stored) ?? 'system'
}
