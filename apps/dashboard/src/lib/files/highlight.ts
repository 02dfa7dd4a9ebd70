import { type Language, languageOf } from './languages.js'

/** A piece of a text, and what it is; `undefined` for plain text. */
export interface Piece {
  readonly text: string
  readonly kind: PieceKind | undefined
}

const kinds = ['keyword', 'string', 'comment', 'constant', 'function', 'punctuation'] as const
/** What a style sheet has colours for. */
export type PieceKind = (typeof kinds)[number]

/** A longer text would keep the page from answering for too long. */
const MAX_CHARS = 32 * 1024
const THEME = 'css-variables'
const NEW_LINE: Piece = { text: '\n', kind: undefined }

/** A text in pieces; `undefined` where its language is not known, or it is too long. What that takes is fetched when it is needed. */
export async function highlight(name: string, text: string): Promise<readonly Piece[] | undefined> {
  const language = languageOf(name)
  if (language === undefined || text.length > MAX_CHARS) return undefined
  const highlighter = await load(language)
  try {
    const { tokens } = highlighter.codeToTokens(text, { lang: language.name, theme: THEME })
    const lines = tokens.map((line) => line.map(({ content, color = '' }) => ({ text: content, kind: kindOf(color) })))
    return lines.flatMap((line, index) => (index === 0 ? line : [NEW_LINE, ...line]))
  } finally {
    highlighter.dispose()
  }
}

/** Its regular expressions are those of the browser: the usual engine is WebAssembly, which the page's policy refuses. */
async function load(language: Language) {
  const [{ createCssVariablesTheme, createHighlighterCore }, { createJavaScriptRegexEngine }, grammar] =
    await Promise.all([import('shiki/core'), import('shiki/engine/javascript'), language.load()])
  const theme = createCssVariablesTheme({ name: THEME, variablePrefix: '--code-' })
  const engine = createJavaScriptRegexEngine({ forgiving: true })
  return await createHighlighterCore({ langs: [grammar.default], themes: [theme], engine })
}

function kindOf(color: string): PieceKind | undefined {
  return kinds.find((kind) => color.startsWith(`var(--code-token-${kind}`))
}
