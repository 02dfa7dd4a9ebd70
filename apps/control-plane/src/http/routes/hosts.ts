import {
  deleteHostQuerySchema,
  drainHostSchema,
  hostCredentialsSchema,
  hostDrainSchema,
  hostIdSchema,
  hostSchema,
  hostTagsBodySchema,
  newHostSchema,
  refreshHostSchema,
  registerHostSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, fromOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent, optionalBody } from '../schemas.js'

const tags = ['hosts']
const params = z.object({ id: hostIdSchema })

/** For machines, which have tokens and no key. */
export function openHostRoutes(app: App, { joining }: Services): void {
  const config = { permission: 'public' } as const

  app.post(
    '/v1/hosts/register',
    {
      config,
      schema: {
        tags,
        summary: 'Join as a host, with a token that is good once.',
        description: 'The answer can be asked for again for the same key, until the refresh token was used.',
        security: [],
        body: registerHostSchema,
        response: { 201: hostCredentialsSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await reply.status(201).send(await joining.register(request.body, fromOf(request)))
    },
  )

  app.post(
    '/v1/hosts/auth/refresh',
    {
      config,
      schema: {
        tags,
        summary: 'Get the next certificate and refresh token of a host.',
        description:
          'Certificates last 7 days; ask after two thirds of that. A refresh token that comes a second time with another key is taken for stolen: the host is trusted no more until it joins again.',
        security: [],
        body: refreshHostSchema,
        response: { 200: hostCredentialsSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await reply.status(200).send(await joining.refresh(request.body, fromOf(request)))
    },
  )
}

/** For admins of the platform. */
export function hostRoutes(app: App, { drains, joinedHosts }: Services): void {
  app.get(
    '/v1/hosts',
    {
      config: { permission: 'hosts.read' },
      schema: {
        tags,
        summary: 'List the machines that have joined or may.',
        response: { 200: z.array(hostSchema), ...errors },
      },
    },
    () => joinedHosts.list(),
  )

  app.post(
    '/v1/hosts',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Let a machine join, one of any number, with a token that is good once and for an hour.',
        response: { 201: newHostSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await reply.status(201).send(await joinedHosts.create(actorOf(request)))
    },
  )

  app.get(
    '/v1/hosts/:id',
    {
      config: { permission: 'hosts.read' },
      schema: { tags, summary: 'One of them.', params, response: { 200: hostSchema, ...errors } },
    },
    (request) => joinedHosts.get(request.params.id),
  )

  app.post(
    '/v1/hosts/:id/token',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Make another token for a host, by which a machine joins in its place; it keeps its id and capsules.',
        params,
        response: { 201: newHostSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await reply.status(201).send(await joinedHosts.renewToken(request.params.id, actorOf(request)))
    },
  )

  app.post(
    '/v1/hosts/:id/cordon',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Give a host no new capsules. Those that it has stay, wake and are forked there.',
        params,
        response: { 200: hostSchema, ...errors },
      },
    },
    (request) => joinedHosts.cordon(request.params.id, true, actorOf(request)),
  )

  app.post(
    '/v1/hosts/:id/uncordon',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Give it new capsules again, and move no more off it.',
        params,
        response: { 200: hostSchema, ...errors },
      },
    },
    (request) => joinedHosts.cordon(request.params.id, false, actorOf(request)),
  )

  app.post(
    '/v1/hosts/:id/drain',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Cordon a host and move all that it has off it.',
        description:
          'Running capsules go on on other hosts, paused ones hibernate. It goes on until it is stopped, whoever asked is there or not: what cannot be moved is tried again, and what comes to the host is moved too. Asked again, it goes on with that many at once.',
        params,
        body: optionalBody(drainHostSchema),
        response: { 200: hostDrainSchema, ...errors },
      },
    },
    (request) => drains.start(request.params.id, request.body.concurrency, actorOf(request)),
  )

  app.get(
    '/v1/hosts/:id/drain',
    {
      config: { permission: 'hosts.read' },
      schema: {
        tags,
        summary: 'How far a host is emptied, and why what is left could not be moved.',
        params,
        response: { 200: hostDrainSchema, ...errors },
      },
    },
    (request) => drains.get(request.params.id),
  )

  app.delete(
    '/v1/hosts/:id/drain',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Move no more off a host, which stays cordoned; moves under way come to their end.',
        params,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await drains.stop(request.params.id, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.put(
    '/v1/hosts/:id/tags',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Say by which tags creates may ask for a host, instead of those that it has.',
        params,
        body: hostTagsBodySchema,
        response: { 200: hostSchema, ...errors },
      },
    },
    (request) => joinedHosts.tag(request.params.id, request.body.tags, actorOf(request)),
  )

  app.post(
    '/v1/hosts/rotate-authority',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Have another authority sign for hosts from now on.',
        description: 'The one before is trusted until no host has a certificate of it, which takes 7 days at most.',
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await joinedHosts.rotateAuthority(actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.delete(
    '/v1/hosts/:id',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags,
        summary: 'Send a host away: its certificates are revoked, and it is called no more.',
        params,
        querystring: deleteHostQuerySchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await joinedHosts.remove(request.params.id, request.query.force, actorOf(request))
      return await reply.status(204).send()
    },
  )
}
