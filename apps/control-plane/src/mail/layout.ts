import { type Letter, plainName } from './letter.js'

/** A letter in both forms that a mail has. */
export interface Rendered {
  readonly subject: string
  readonly text: string
  readonly html: string
}

const SIGNATURE = 'Wrenn'

/** Escapes everything that a letter says; a letter itself has no markup. */
export function render(letter: Letter): Rendered {
  return { subject: oneLine(letter.subject), text: textOf(letter), html: htmlOf(letter) }
}

function greeting({ name }: Letter): string {
  const plain = name === undefined ? '' : plainName(name)
  return plain === '' ? 'Hello,' : `Hello ${plain},`
}

function textOf(letter: Letter): string {
  const { before, action, after } = letter
  const parts = [greeting(letter), ...before]
  if (action !== undefined) parts.push(`${action.label}:\n${action.url}`)
  return `${[...parts, ...after, SIGNATURE].join('\n\n')}\n`
}

function htmlOf(letter: Letter): string {
  const { subject, before, action, after } = letter
  const paragraph = (text: string): string => `<p style="margin:0 0 16px">${escapeHtml(text)}</p>`
  const small = (text: string): string =>
    `<p style="margin:0 0 8px;color:#6b6862;font-size:13px">${escapeHtml(text)}</p>`
  const button =
    action === undefined
      ? ''
      : `<p style="margin:0 0 16px"><a href="${escapeHtml(action.url)}" style="display:inline-block;padding:10px 18px;border-radius:6px;background:#2f5d50;color:#ffffff;text-decoration:none">${escapeHtml(action.label)}</a></p>
${small('If the button does not work, open this address:')}
<p style="margin:0 0 16px;font-size:13px;word-break:break-all">${escapeHtml(action.url)}</p>`
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(oneLine(subject))}</title></head>
<body style="margin:0;padding:24px;background:#f6f4ef;color:#23211d;font:15px/1.5 system-ui,sans-serif">
<div style="max-width:520px;margin:0 auto;padding:28px;background:#ffffff;border:1px solid #e4e0d7;border-radius:8px">
${[paragraph(greeting(letter)), ...before.map(paragraph), button, ...after.map(small)].filter((part) => part !== '').join('\n')}
<p style="margin:16px 0 0">${SIGNATURE}</p>
</div>
</body>
</html>
`
}

/** A header is one line. */
function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ').trim()
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '')
}
