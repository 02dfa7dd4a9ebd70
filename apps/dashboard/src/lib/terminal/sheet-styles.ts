/**
 * Runs `act`, in which what is made as a `<style>` becomes a style sheet of the document instead. xterm.js writes its styles into such
 * elements; the policy of the page refuses those, as it refuses all that is written into a page, but not the sheets that scripts make
 * (https://drafts.csswg.org/cssom/#dom-cssstylesheet-replacesync).
 * @returns what takes the sheets away
 */
export function withSheetStyles(document: Document, act: () => void): () => void {
  const sheets = new Set<CSSStyleSheet>()
  const drop = (sheet: CSSStyleSheet): void => {
    sheets.delete(sheet)
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet)
  }
  const createElement = document.createElement.bind(document)
  const createStyle = (tag: string, options?: ElementCreationOptions): HTMLElement => {
    if (tag !== 'style') return createElement(tag, options)
    const sheet = new CSSStyleSheet()
    sheets.add(sheet)
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]
    return standIn(createElement('span'), sheet, () => drop(sheet))
  }
  // Hides the document's own method until it is taken away again; nothing else runs meanwhile.
  Object.defineProperty(document, 'createElement', { value: createStyle, configurable: true })
  try {
    act()
  } finally {
    Reflect.deleteProperty(document, 'createElement')
  }
  return () => {
    for (const sheet of sheets) drop(sheet)
  }
}

/** An element that shows nothing, whose text is the sheet's. */
function standIn(element: HTMLElement, sheet: CSSStyleSheet, onRemove: () => void): HTMLElement {
  element.hidden = true
  let text = ''
  Object.defineProperty(element, 'textContent', {
    get: () => text,
    set: (css: string) => {
      text = css
      sheet.replaceSync(css)
    },
  })
  const remove = element.remove.bind(element)
  element.remove = () => {
    onRemove()
    remove()
  }
  return element
}

/**
 * Has the attribute `style` of a `<span>` set through its `style`, which the policy lets scripts do: xterm.js sets the colours of what is
 * selected and of 24 bits as the attribute, and without this shows none of them.
 */
export function letScriptsStyleSpans(): void {
  const { prototype } = HTMLSpanElement
  if (Object.hasOwn(prototype, 'setAttribute')) return
  const setAttribute = Element.prototype.setAttribute
  prototype.setAttribute = function (name, value) {
    if (name === 'style') this.style.cssText = value
    else setAttribute.call(this, name, value)
  }
}
