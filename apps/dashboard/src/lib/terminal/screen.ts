import { FitAddon } from '@xterm/addon-fit'
import { SearchAddon } from '@xterm/addon-search'
import { WebLinksAddon } from '@xterm/addon-web-links'
import { type ITheme, Terminal } from '@xterm/xterm'
import '@xterm/xterm/css/xterm.css'
import { letScriptsStyleSpans, withSheetStyles } from './sheet-styles.js'

const SCROLLBACK_LINES = 10_000
/** More than this that is not drawn yet, and the capsule is made to wait. */
const HIGH_WATER_BYTES = 512 * 1024

/** What a screen leaves to its page. */
export interface ScreenOptions {
  readonly theme: ITheme
  /** Somebody clicked an address that a program has printed: it may say one thing and lead elsewhere. */
  readonly onLink: (url: string) => void
  readonly onSearch: () => void
  readonly onCopy: () => void
}

/** A terminal on the page. */
export class Screen {
  readonly terminal: Terminal
  readonly #fit = new FitAddon()
  readonly #search = new SearchAddon()
  readonly #release: () => void
  #undrawnBytes = 0
  #drawn: (() => void) | undefined

  constructor(element: HTMLElement, { theme, onLink, onSearch, onCopy }: ScreenOptions) {
    this.terminal = new Terminal({
      fontFamily: '"JetBrains Mono Variable", ui-monospace, monospace',
      fontSize: 13,
      lineHeight: 1.25,
      cursorBlink: true,
      scrollback: SCROLLBACK_LINES,
      minimumContrastRatio: 4.5,
      linkHandler: { activate: (_event, url) => onLink(url) },
      theme,
    })
    this.terminal.loadAddon(this.#fit)
    this.terminal.loadAddon(this.#search)
    this.terminal.loadAddon(new WebLinksAddon((_event, url) => onLink(url)))
    this.terminal.attachCustomKeyEventHandler((event) => {
      const act = event.ctrlKey && event.shiftKey ? { KeyF: onSearch, KeyC: onCopy }[event.code] : undefined
      if (act === undefined) return true
      event.preventDefault()
      if (event.type === 'keydown') act()
      return false
    })
    letScriptsStyleSpans()
    this.#release = withSheetStyles(document, () => this.terminal.open(element))
  }

  /** As many columns and lines as there is room for. A hidden one keeps its size. */
  fit(): void {
    if (this.terminal.element?.offsetParent) this.#fit.fit()
  }

  /** Selects the next or the previous place of a text. @returns whether there is one */
  find(text: string, direction: 'next' | 'previous'): boolean {
    return direction === 'next' ? this.#search.findNext(text) : this.#search.findPrevious(text)
  }

  /** Resolves when little enough waits to be drawn to take more. */
  async write(data: Uint8Array | string): Promise<void> {
    this.#undrawnBytes += data.length
    this.terminal.write(data, () => {
      this.#undrawnBytes -= data.length
      this.#drawn?.()
    })
    while (this.#undrawnBytes > HIGH_WATER_BYTES) {
      await new Promise<void>((resolve) => {
        this.#drawn = resolve
      })
    }
  }

  dispose(): void {
    this.terminal.dispose()
    this.#release()
  }
}

/** The colours of the page for a terminal in it. */
export function themeFrom(style: CSSStyleDeclaration): ITheme {
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim()
  return {
    background: colour('bg-0'),
    foreground: colour('text-1'),
    cursor: colour('sage'),
    cursorAccent: colour('bg-0'),
    selectionBackground: colour('bg-5'),
    black: colour('bg-4'),
    red: colour('red'),
    green: colour('sage'),
    yellow: colour('amber'),
    blue: colour('blue'),
    brightBlack: colour('text-4'),
    brightGreen: colour('sage-strong'),
    white: colour('text-2'),
    brightWhite: colour('text-1'),
  }
}
