import { z } from 'zod'
import { readFields, readUrl } from '../fields.js'
import { fieldOf, judge, numberOf, reasonOf } from '../judge.js'
import type { Provider } from '../provider.js'
import { asLines, chatText, escapeHtml } from '../text.js'

/**
 * A room of Matrix, https://spec.matrix.org/latest/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid. A server takes what comes twice under one
 * id of a transaction as one.
 */
export const matrix: Provider = {
  concurrency: 1,
  parse(config, guard) {
    const fields = readFields(
      {
        homeserver_url: z.string(),
        access_token: z.string().regex(/^[\x21-\x7e]{8,}$/, 'must be the access token of an account'),
        room_id: z.string().regex(/^![\x21-\x7e]+$/, 'must be the internal id of the room, which begins with !'),
      },
      config,
    )
    const { origin, pathname } = readUrl('homeserver_url', fields.homeserver_url, guard)
    return { ...fields, homeserver_url: (origin + pathname).replace(/\/+$/, '') }
  },
  target: ({ homeserver_url = '' }) => new URL(homeserver_url).host,
  secrets: ({ access_token = '' }) => [access_token],
  request({ homeserver_url = '', access_token = '', room_id = '' }, message) {
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(room_id)}/send/m.room.message/${message.id}`
    const text = chatText(message)
    const html = [
      `<strong>${escapeHtml(text.summary)}</strong>`,
      ...text.lines.map(([name, value]) => `${name}: ${escapeHtml(value)}`),
    ].join('<br>')
    const content = {
      msgtype: 'm.notice',
      body: asLines(text, (value) => value),
      format: 'org.matrix.custom.html',
      formatted_body: html,
      // Names are text of others: nobody is called by them.
      'm.mentions': {},
    }
    return {
      method: 'PUT',
      url: new URL(homeserver_url + path),
      shownUrl: homeserver_url + path,
      headers: { 'content-type': 'application/json', authorization: `Bearer ${access_token}` },
      body: JSON.stringify(content),
    }
  },
  judge(answer) {
    const said = fieldOf(answer, 'error')
    const code = fieldOf(answer, 'errcode')
    const verdict = judge(answer, {
      refused: [400, 413],
      gone: [401, 403],
      said: typeof code === 'string' ? `${code} ${String(said ?? '')}` : said,
      afterMs: numberOf(answer, 'retry_after_ms'),
    })
    if (verdict.kind === 'delivered' && typeof fieldOf(answer, 'event_id') !== 'string') {
      return { kind: 'later', reason: reasonOf(answer), isRate: false }
    }
    return verdict
  },
}
