import {
  auditPageSchema,
  createUserSchema,
  listAuditQuerySchema,
  listUsersQuerySchema,
  newUserSchema,
  personSchema,
  updateUserSchema,
  userIdSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { PLATFORM_TEAM_ID } from '../../domain/people/index.js'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors } from '../schemas.js'

const tags = ['accounts']

/** For admins of the platform. */
export function userRoutes(app: App, { accountEnds, audit, userAdmin }: Services): void {
  app.get(
    '/v1/admin/users',
    {
      config: { permission: 'users.read' },
      schema: {
        tags,
        summary: 'List all accounts, oldest first.',
        querystring: listUsersQuerySchema,
        response: { 200: z.array(personSchema), ...errors },
      },
    },
    (request) => userAdmin.list(request.query),
  )

  app.post(
    '/v1/admin/users',
    {
      config: { permission: 'users.write' },
      schema: {
        tags,
        summary: 'Make an account; no mail is sent.',
        description: 'The token activates it once within 7 days, with the password that its owner chooses.',
        body: createUserSchema,
        response: { 201: newUserSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await userAdmin.create(principalOf(request), request.body, actorOf(request))
      return await reply.header('cache-control', 'no-store').status(201).send(made)
    },
  )

  app.patch(
    '/v1/admin/users/:id',
    {
      config: { permission: 'users.write' },
      schema: {
        tags,
        summary: 'Enable, disable, promote or demote an account.',
        description:
          'Disabling ends its sessions and the keys that it made, on every control plane within a second. The last admin stays one.',
        params: z.object({ id: userIdSchema }),
        body: updateUserSchema,
        response: { 200: personSchema, ...errors },
      },
    },
    (request) => userAdmin.update(principalOf(request), request.params.id, request.body, actorOf(request)),
  )

  app.post(
    '/v1/admin/users/:id/restore',
    {
      config: { permission: 'users.write' },
      schema: {
        tags,
        summary: 'Take back that somebody has deleted their account, until it is erased.',
        description: 'Its sessions, and the keys that it made, do not come back.',
        params: z.object({ id: userIdSchema }),
        response: { 200: personSchema, ...errors },
      },
    },
    (request) => accountEnds.restore(principalOf(request), request.params.id, actorOf(request)),
  )

  app.get(
    '/v1/admin/audit-logs',
    {
      config: { permission: 'users.read' },
      schema: {
        tags,
        summary: 'What people did who are in no team: sign-ups, and logins with addresses that nobody has.',
        querystring: listAuditQuerySchema,
        response: { 200: auditPageSchema, ...errors },
      },
    },
    (request) => audit.list(PLATFORM_TEAM_ID, request.query),
  )
}
