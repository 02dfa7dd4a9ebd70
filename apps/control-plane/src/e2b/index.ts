import type { App, Services } from '../http/context.js'
import { buildRoutes } from './routes/builds.js'
import { createRoutes } from './routes/create.js'
import { forkRoutes } from './routes/fork.js'
import { lifecycleRoutes } from './routes/lifecycle.js'
import { logRoutes } from './routes/logs.js'
import { networkRoutes } from './routes/network.js'
import { sandboxRoutes } from './routes/sandboxes.js'
import { secretRoutes } from './routes/secrets.js'
import { snapshotRoutes } from './routes/snapshots.js'
import { tagRoutes } from './routes/tags.js'
import { teamRoutes } from './routes/teams.js'
import { templateRoutes } from './routes/templates.js'
import { unsupportedRoutes } from './routes/unsupported.js'

export { e2bErrorBody, isE2bTarget } from './wire.js'

/**
 * The paths that clients made for E2B use. A sandbox is a capsule seen through them: everything below maps to the same services as `/v1`, and
 * nothing is kept here.
 */
export function e2bRoutes(app: App, services: Services): void {
  createRoutes(app, services)
  sandboxRoutes(app, services)
  lifecycleRoutes(app, services)
  logRoutes(app, services)
  forkRoutes(app, services)
  snapshotRoutes(app, services)
  networkRoutes(app, services)
  secretRoutes(app, services)
  templateRoutes(app, services)
  buildRoutes(app, services)
  tagRoutes(app, services)
  teamRoutes(app, services)
  unsupportedRoutes(app)
}
