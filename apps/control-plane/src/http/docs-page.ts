interface Operation {
  readonly summary?: string
  readonly description?: string
  readonly tags?: readonly string[]
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly content?: Readonly<Record<string, { readonly schema?: unknown }>> }
  readonly responses?: Readonly<Record<string, Answer>>
}
interface Parameter {
  readonly name: string
  readonly in: string
  readonly required?: boolean
  readonly description?: string
  readonly schema?: unknown
}
interface Answer {
  readonly description?: string
  readonly content?: Readonly<Record<string, { readonly schema?: unknown }>>
}
interface Document {
  readonly info?: { readonly title?: string; readonly version?: string }
  readonly tags?: readonly { readonly name: string; readonly description?: string }[]
  readonly paths?: Readonly<Record<string, unknown>>
  readonly components?: { readonly schemas?: Readonly<Record<string, unknown>> }
}

const methods = ['get', 'head', 'post', 'put', 'patch', 'delete'] as const

const style = `
:root{color-scheme:light dark;--line:light-dark(#ddd,#333);--soft:light-dark(#f6f6f4,#191919);--accent:light-dark(#0a6b4f,#58c9a3)}
body{font:16px/1.55 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:2rem 1.25rem}
h1{margin:0}h2{border-top:1px solid var(--line);margin-top:3rem;padding-top:1.5rem}
code,pre{font:13px/1.5 ui-monospace,monospace}pre{background:var(--soft);overflow:auto;padding:.75rem 1rem}
a{color:var(--accent)}details{border:1px solid var(--line);margin:.5rem 0}summary{cursor:pointer;padding:.6rem .9rem}
details>div{border-top:1px solid var(--line);padding:.25rem 1rem 1rem}b.m{color:var(--accent);display:inline-block;width:4.5rem}
table{border-collapse:collapse;width:100%}td{border-top:1px solid var(--line);padding:.35rem .75rem .35rem 0;vertical-align:top}
`

/** The reference page: one HTML file without scripts and without anything from elsewhere. */
export function renderDocs(api: object): string {
  const document: Document = api
  const title = `${document.info?.title ?? 'API'} ${document.info?.version ?? ''}`
  const groups = (document.tags ?? []).map((tag) => {
    const operations = operationsOf(document, tag.name)
    return `<h2 id="${escapeHtml(tag.name)}">${escapeHtml(tag.name)}</h2><p>${escapeHtml(tag.description ?? '')}</p>${operations}`
  })
  const schemas = Object.entries(document.components?.schemas ?? {}).map(
    ([name, schema]) =>
      `<details id="schema-${escapeHtml(name)}"><summary><code>${escapeHtml(name)}</code></summary><div>${json(schema)}</div></details>`,
  )
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title><style>${style}</style></head><body>
<h1>${escapeHtml(title)}</h1><p>Send your key in the header <code>X-API-Key</code>. The same as a document: <a href="/openapi.json">/openapi.json</a>.</p>
${groups.join('\n')}
<h2 id="schemas">schemas</h2>${schemas.join('\n')}</body></html>`
}

function operationsOf(document: Document, tag: string): string {
  const found: string[] = []
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of methods) {
      const operation = pick(item, method)
      if (operation?.tags?.includes(tag)) found.push(renderOperation(method, path, operation))
    }
  }
  return found.join('\n')
}

function pick(item: unknown, method: string): Operation | undefined {
  if (typeof item !== 'object' || item === null || !(method in item)) return undefined
  // The generator of the document writes nothing else under a method.
  return (item as Readonly<Record<string, Operation>>)[method]
}

function renderOperation(method: string, path: string, operation: Operation): string {
  const rows = (operation.parameters ?? []).map(
    (parameter) =>
      `<tr><td><code>${escapeHtml(parameter.name)}</code>${parameter.required === true ? '*' : ''}</td><td>${escapeHtml(parameter.in)}</td><td>${escapeHtml(parameter.description ?? '')}</td></tr>`,
  )
  const body = Object.entries(operation.requestBody?.content ?? {}).map(
    ([type, { schema }]) => `<h4>Body <code>${escapeHtml(type)}</code></h4>${json(schema)}`,
  )
  const answers = Object.entries(operation.responses ?? {}).map(([status, answer]) => renderAnswer(status, answer))
  return `<details><summary><b class="m">${method.toUpperCase()}</b> <code>${escapeHtml(path)}</code> ${escapeHtml(operation.summary ?? '')}</summary><div>
<p>${escapeHtml(operation.description ?? '')}</p>${rows.length > 0 ? `<table>${rows.join('')}</table>` : ''}${body.join('')}${answers.join('')}</div></details>`
}

function renderAnswer(status: string, answer: Answer): string {
  const content = Object.entries(answer.content ?? {}).map(
    ([type, { schema }]) => `<code>${escapeHtml(type)}</code>${json(schema)}`,
  )
  return `<h4>${escapeHtml(status)}</h4><p>${escapeHtml(answer.description ?? '')}</p>${content.join('')}`
}

function json(value: unknown): string {
  const text = escapeHtml(JSON.stringify(value, null, 2) ?? '')
  return `<pre>${text.replaceAll(/#\/components\/schemas\/([A-Za-z]+)/g, '<a href="#schema-$1">$1</a>')}</pre>`
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
