import { AppError } from '@wrenn/base'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isE2bTarget } from '../../e2b/index.js'
import type { App, Services } from '../context.js'
import { chooseCoding, type Dashboard, type DashboardFile } from './dashboard.js'

/** Pages that are open to everybody, among them those that links in mails lead to. What needs a session is below `/dashboard`. */
const pages = [
  '/',
  '/dashboard',
  '/dashboard/*',
  '/login',
  '/setup',
  '/signup',
  '/activate',
  '/forgot-password',
  '/reset-password',
  '/invitation',
  '/device',
  '/auth/callback',
]
/** Names that change with what is in them. */
const IMMUTABLE = /^\/_app\/immutable\//

const route = { config: { permission: 'public' }, schema: { hide: true } } as const

/** The dashboard: its shell at every address of a page, and the files that it loads. */
export function dashboardRoutes(app: App, { dashboard }: Services): void {
  for (const page of pages) {
    app.get(page, route, async (_request, reply) => {
      if (dashboard === undefined) throw new AppError('not_found', 'The dashboard is not built: run `npm run build`.')
      return await sendShell(reply, dashboard)
    })
  }
  for (const path of ['/_app/*', '/favicon.svg']) {
    app.get(path, route, async (request, reply) => {
      const name = pathOf(request)
      const file = dashboard?.files.get(name)
      if (file === undefined) throw new AppError('not_found', `There is no ${name.slice(0, 200)}.`)
      void reply.header('cache-control', IMMUTABLE.test(name) ? 'public, max-age=31536000, immutable' : 'no-cache')
      return await sendFile(reply, file)
    })
  }
}

/** Whether who asks for an address that does not exist is a person in a browser, who is better served with a page than with JSON. */
export function isPageWanted(request: FastifyRequest): boolean {
  const { method, headers, url } = request
  const isRead = method === 'GET' || method === 'HEAD'
  return isRead && /\btext\/html\b/.test(headers.accept ?? '') && !/^\/(?:v1|_app)\b/.test(url) && !isE2bTarget(url)
}

/** The shell finds out by itself what the address is. */
export async function sendShell(reply: FastifyReply, dashboard: Dashboard): Promise<FastifyReply> {
  void reply
    .header('content-security-policy', dashboard.contentSecurityPolicy)
    .header('x-frame-options', 'DENY')
    // Links of mails have codes in them.
    .header('referrer-policy', 'no-referrer')
    .header('cross-origin-opener-policy', 'same-origin')
    .header('cache-control', 'no-store')
  return await sendFile(reply, dashboard.shell)
}

async function sendFile(reply: FastifyReply, file: DashboardFile): Promise<FastifyReply> {
  const coding = chooseCoding(file, reply.request.headers['accept-encoding'])
  void reply.type(file.type).header('vary', 'Accept-Encoding')
  if (coding !== undefined) void reply.header('content-encoding', coding)
  return await reply.send((coding && file.coded[coding]) ?? file.body)
}

/** As it was sent: a name that is written otherwise is no name of ours. */
function pathOf({ url }: FastifyRequest): string {
  return url.split('?', 1)[0] ?? ''
}
