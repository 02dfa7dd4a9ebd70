import { AppError } from '@wrenn/base'
import type { Permission } from '@wrenn/protocol'
import type { App } from '../../http/context.js'
import { hidden } from '../request.js'

const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

interface Unsupported {
  readonly urls: readonly string[]
  readonly permission: Permission
  readonly what: string
}

/** What clients know and this platform does not have. Their programs are told so, rather than that something was not found. */
const unsupported: readonly Unsupported[] = [
  {
    urls: ['/volumes', '/volumes/*', '/volumecontent/*'],
    permission: 'capsules.use',
    what: 'Volumes are',
  },
  {
    urls: ['/v3/templates/*', '/v2/templates/*', '/templates/:name/*'],
    permission: 'templates.write',
    what: 'Changing templates and the first ways to build them are',
  },
]

/** Refuses each of them by name. */
export function unsupportedRoutes(app: App): void {
  for (const { urls, permission, what } of unsupported) {
    for (const url of urls) {
      app.route({
        method: methods,
        url,
        config: { permission },
        schema: { ...hidden },
        handler: async () => {
          throw new AppError('not_supported', `${what} not supported by this platform; see docs/e2b.md.`)
        },
      })
    }
  }
}
