import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { hidden } from '../request.js'

/** The team of the key. The key itself is not sent back: who asks has it. */
export function teamRoutes(app: App, { teamName }: Services): void {
  app.get('/teams', { config: { permission: 'quota.read' }, schema: { ...hidden } }, async (request) => {
    const { teamId } = principalOf(request)
    return [{ teamID: teamId, name: (await teamName(teamId)) ?? teamId, apiKey: '', isDefault: true }]
  })
}
