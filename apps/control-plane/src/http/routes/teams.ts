import {
  acceptInvitationSchema,
  changeRoleSchema,
  createTeamSchema,
  foundUserSchema,
  type Invitation,
  type InviteInput,
  invitationIdSchema,
  invitationSchema,
  inviteSchema,
  listedTeamSchema,
  memberSchema,
  searchUsersQuerySchema,
  teamDetailsSchema,
  teamIdSchema,
  teamSchema,
  transferTeamSchema,
  updateTeamSchema,
  userIdSchema,
} from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { noTeam } from '../../domain/teams/index.js'
import { actorOf, principalOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const teamParams = z.object({ id: teamIdSchema })
const memberParams = z.object({ id: teamIdSchema, user_id: userIdSchema })
const invitationParams = z.object({ id: teamIdSchema, invitation_id: invitationIdSchema })

/** Teams and who is in them. Each of them is about the team that its session or key works in; any other is not there. */
export function teamRoutes(app: App, services: Services): void {
  ownRoutes(app, services)
  aboutTeam(app, services)
  aboutMembers(app, services)
  aboutInvitations(app, services)
}

/** @throws AppError `team_not_found` for a team that the request does not work in */
function teamOf(request: FastifyRequest<{ Params: { id: string } }>): string {
  const { id } = request.params
  if (principalOf(request).teamId !== id) throw noTeam(id)
  return id
}

function ownRoutes(app: App, { teams, members, invitations, throttle }: Services): void {
  app.get(
    '/v1/teams',
    {
      config: { permission: 'team.read' },
      schema: {
        tags: ['teams'],
        summary: 'List the teams that you are in, the oldest membership first; for a key its own.',
        response: { 200: z.array(listedTeamSchema), ...errors },
      },
    },
    async (request) => {
      const principal = principalOf(request)
      if (principal.kind === 'key') {
        return [{ ...(await teams.get(principal.teamId)).team, role: 'admin', current: true }]
      }
      const own = await teams.list(principal.id)
      return own.map((team) => ({ ...team, current: team.id === principal.teamId }))
    },
  )

  app.post(
    '/v1/teams',
    {
      config: { permission: 'account.use' },
      schema: {
        tags: ['teams'],
        summary: 'Make a team, of which you are the owner.',
        description: 'For people. The session goes on in the team that it works in: POST /v1/auth/switch-team.',
        body: createTeamSchema,
        response: { 201: teamSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await teams.create(userOf(request), request.body.name, actorOf(request))
      return await reply.status(201).send(made)
    },
  )

  app.post(
    '/v1/invitations/accept',
    {
      config: { permission: 'account.use' },
      schema: {
        tags: ['teams'],
        summary: 'Come into the team of an invitation, with the account of the address that it was sent to.',
        body: acceptInvitationSchema,
        response: { 200: teamSchema, ...errors },
      },
    },
    (request) => invitations.accept(userOf(request), request.body.token, actorOf(request)),
  )

  app.get(
    '/v1/users/search',
    {
      config: { permission: 'account.use' },
      schema: {
        tags: ['teams'],
        summary: 'Find people of your teams by the beginning of their address; ten at most.',
        querystring: searchUsersQuerySchema,
        response: { 200: z.array(foundUserSchema), ...errors },
      },
    },
    async (request) => {
      const person = userOf(request)
      await throttle.count('search', person.id)
      return await members.search(person, request.query.email)
    },
  )
}

function aboutTeam(app: App, { teams, members }: Services): void {
  app.get(
    '/v1/teams/:id',
    {
      config: { permission: 'team.read' },
      schema: {
        tags: ['teams'],
        summary: 'A team and who is in it.',
        params: teamParams,
        response: { 200: teamDetailsSchema, ...errors },
      },
    },
    (request) => teams.get(teamOf(request)),
  )

  app.patch(
    '/v1/teams/:id',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Rename a team, or say whether commands and file operations are in its audit trail.',
        params: teamParams,
        body: updateTeamSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await teams.update(teamOf(request), request.body, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.delete(
    '/v1/teams/:id',
    {
      config: { permission: 'team.own' },
      schema: {
        tags: ['teams'],
        summary: 'Delete a team.',
        description:
          'Its people, keys and invitations end at once; its capsules and snapshots are ended soon after, by operations of their own.',
        params: teamParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await teams.remove(teamOf(request), actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/teams/:id/transfer',
    {
      config: { permission: 'team.own' },
      schema: {
        tags: ['teams'],
        summary: 'Hand a team over to somebody who is in it; you become an admin.',
        params: teamParams,
        body: transferTeamSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await members.transfer(teamOf(request), userOf(request), request.body.user_id, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/teams/:id/leave',
    {
      config: { permission: 'account.use' },
      schema: {
        tags: ['teams'],
        summary: 'Leave a team. Its owner hands it over first.',
        params: teamParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await members.leave(teamOf(request), userOf(request).id, actorOf(request))
      return await reply.status(204).send()
    },
  )
}

function aboutMembers(app: App, services: Services): void {
  const { members } = services
  app.get(
    '/v1/teams/:id/members',
    {
      config: { permission: 'team.read' },
      schema: {
        tags: ['teams'],
        summary: 'List who is in a team, who has been there for longest first.',
        params: teamParams,
        response: { 200: z.array(memberSchema), ...errors },
      },
    },
    (request) => members.list(teamOf(request)),
  )

  app.patch(
    '/v1/teams/:id/members/:user_id',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Change what somebody is in a team; not the owner.',
        description: 'With a lesser role, keys that they made and that may do more end.',
        params: memberParams,
        body: changeRoleSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await members.changeRole(teamOf(request), request.params.user_id, request.body.role, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.delete(
    '/v1/teams/:id/members/:user_id',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Remove somebody from a team, with the keys that they made there; not the owner.',
        params: memberParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await members.remove(teamOf(request), request.params.user_id, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/teams/:id/members',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Another name for the making of an invitation: nobody comes into a team without accepting.',
        params: teamParams,
        body: inviteSchema,
        response: { 202: invitationSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await invite(services, request)
      return await reply.status(202).send(made)
    },
  )
}

function aboutInvitations(app: App, services: Services): void {
  const { invitations } = services
  app.get(
    '/v1/teams/:id/invitations',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'List invitations that nobody has accepted or revoked, newest first.',
        params: teamParams,
        response: { 200: z.array(invitationSchema), ...errors },
      },
    },
    (request) => invitations.list(teamOf(request)),
  )

  app.post(
    '/v1/teams/:id/invitations',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Invite somebody by mail.',
        description: 'The same answer whether or not the address has an account.',
        params: teamParams,
        body: inviteSchema,
        response: { 201: invitationSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await invite(services, request)
      return await reply.status(201).send(made)
    },
  )

  app.post(
    '/v1/teams/:id/invitations/:invitation_id/resend',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Send an invitation once more, with a new link; up to five times in all.',
        params: invitationParams,
        response: { 200: invitationSchema, ...errors },
      },
    },
    (request) => invitations.resend(teamOf(request), request.params.invitation_id, actorOf(request)),
  )

  app.delete(
    '/v1/teams/:id/invitations/:invitation_id',
    {
      config: { permission: 'team.write' },
      schema: {
        tags: ['teams'],
        summary: 'Revoke an invitation; repeats succeed.',
        params: invitationParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await invitations.revoke(teamOf(request), request.params.invitation_id, actorOf(request))
      return await reply.status(204).send()
    },
  )
}

/** Bounded over all teams of somebody: mails go to people who have not asked for them. */
async function invite(
  { invitations, throttle }: Services,
  request: FastifyRequest<{ Params: { id: string }; Body: InviteInput }>,
): Promise<Invitation> {
  const teamId = teamOf(request)
  const { id, name } = principalOf(request)
  await throttle.count('invite', id)
  await throttle.count('invitedMailbox', request.body.email)
  return await invitations.create(teamId, request.body, actorOf(request), name)
}
