import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import cookie from '@fastify/cookie'
import multipart from '@fastify/multipart'
import websocket from '@fastify/websocket'
import { AppError, queryText } from '@wrenn/base'
import { BINARY_SUBPROTOCOL } from '@wrenn/protocol'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Principal } from '../domain/accounts/index.js'
import { e2bErrorBody, e2bRoutes, isE2bTarget } from '../e2b/index.js'
import { authenticate, requirePermissions } from './auth.js'
import type { App, Services } from './context.js'
import { allowOrigins } from './cors.js'
import { dashboardRoutes, isPageWanted, sendShell } from './dashboard/routes.js'
import { createErrorHandler, errorBody } from './errors.js'
import { createFront, type Edge } from './front.js'
import { measureRequests } from './metrics.js'
import { describeApi } from './openapi.js'
import { recordAccess } from './record-access.js'
import { allTeamRoutes } from './routes/all-teams.js'
import { apiKeyRoutes } from './routes/api-keys.js'
import { archiveRoutes } from './routes/archive.js'
import { auditRoutes } from './routes/audit.js'
import { authRoutes, openAuthRoutes } from './routes/auth.js'
import { uploadRoutes } from './routes/build-uploads.js'
import { capsuleRoutes } from './routes/capsules.js'
import { channelRoutes } from './routes/channels.js'
import { checkpointRoutes } from './routes/checkpoints.js'
import { deviceRoutes, openDeviceRoutes } from './routes/device.js'
import { egressRoutes } from './routes/egress.js'
import { eventRoutes } from './routes/events.js'
import { execRoutes } from './routes/exec.js'
import { factorRoutes } from './routes/factors.js'
import { fileRoutes } from './routes/files.js'
import { hostRoutes, openHostRoutes } from './routes/hosts.js'
import { lifecycleRoutes } from './routes/lifecycle.js'
import { openLoginStepRoutes } from './routes/login-steps.js'
import { meRoutes, resetRoutes } from './routes/me.js'
import { metricsRoutes } from './routes/metrics.js'
import { oauthRoutes, openOauthRoutes } from './routes/oauth.js'
import { platformRoutes } from './routes/platform.js'
import { registryRoutes } from './routes/registries.js'
import { socketRoutes } from './routes/sockets.js'
import { systemRoutes } from './routes/system.js'
import { teamRoutes } from './routes/teams.js'
import { templateBuildRoutes } from './routes/template-builds.js'
import { templateRoutes } from './routes/templates.js'
import { usageRoutes } from './routes/usage.js'
import { userRoutes } from './routes/users.js'
import { traceRequests } from './traces.js'

const BODY_BYTES = 1024 * 1024
const MAX_FRAME_BYTES = 4 * 1024 * 1024
const MAX_PARAM_LENGTH = 300
const KEEP_ALIVE_MS = 72_000
const CLOSE_GOING_AWAY = 1001
const CLOSE_WITHIN_MS = 1_000

/** The HTTP side: routes, credentials, validation, errors, one log line per request. `edge` has the first look at each request. */
export async function createApp(services: Services, edge?: Edge): Promise<App> {
  const upgrades = createServer()
  const onError = createErrorHandler(services.logger, (error, { id, url }) =>
    isE2bTarget(url) ? e2bErrorBody(error) : errorBody(error, id),
  )
  const app: App = Fastify({
    logger: false,
    serverFactory: (request) => createFront(edge, { request, upgrades, keepAliveMs: KEEP_ALIVE_MS }),
    bodyLimit: BODY_BYTES,
    trustProxy: services.trustedProxies.length === 0 ? false : [...services.trustedProxies],
    genReqId: () => `req-${randomBytes(8).toString('hex')}`,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH, querystringParser: queryFields },
    forceCloseConnections: 'idle',
    frameworkErrors: (error, request, reply) => void onError(error, request, reply),
  }).withTypeProvider<ZodTypeProvider>()
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.setErrorHandler(onError)
  acceptEmptyJson(app)
  app.decorateRequest('principal', null)
  app.decorateRequest('access', null)
  app.addHook('onRequest', async (request, reply) => {
    void reply.header('x-request-id', request.id).header('x-content-type-options', 'nosniff')
  })
  traceRequests(app, services)
  allowOrigins(app, services.corsOrigins)
  logRequests(app, services)
  answerUnknownRoutes(app, services)
  requirePermissions(app)
  const monitoring = measureRequests(app, services)
  await app.register(cookie)
  await app.register(multipart)
  await app.register(websocket, {
    options: {
      server: upgrades,
      maxPayload: MAX_FRAME_BYTES,
      handleProtocols: (offered: Set<string>) => (offered.has(BINARY_SUBPROTOCOL) ? BINARY_SUBPROTOCOL : false),
    },
    preClose: (done) => {
      const { clients } = app.websocketServer
      for (const client of clients) client.close(CLOSE_GOING_AWAY, 'the server is stopping')
      // One that does not read would not answer either; clients come back by themselves.
      const overdue = setTimeout(() => {
        for (const client of clients) client.terminate()
      }, CLOSE_WITHIN_MS)
      app.websocketServer.close(() => {
        clearTimeout(overdue)
        done()
      })
    },
  })
  await describeApi(app, services.version)
  await app.register(async (open: App) => {
    systemRoutes(open, services)
    openAuthRoutes(open, services)
    openLoginStepRoutes(open, services)
    openDeviceRoutes(open, services)
    openOauthRoutes(open, services)
    openHostRoutes(open, services)
    resetRoutes(open, services)
    uploadRoutes(open, services)
    dashboardRoutes(open, services)
  })
  await app.register(async (closed: App) => {
    authenticate(closed, services)
    recordAccess(closed, services)
    capsuleRoutes(closed, services)
    hostRoutes(closed, services)
    usageRoutes(closed, services)
    metricsRoutes(closed, services)
    lifecycleRoutes(closed, services)
    egressRoutes(closed, services)
    checkpointRoutes(closed, services)
    execRoutes(closed, services)
    archiveRoutes(closed, services)
    fileRoutes(closed, services)
    templateRoutes(closed, services)
    templateBuildRoutes(closed, services)
    registryRoutes(closed, services)
    apiKeyRoutes(closed, services)
    teamRoutes(closed, services)
    allTeamRoutes(closed, services)
    platformRoutes(closed, services)
    monitoring.route(closed)
    auditRoutes(closed, services)
    eventRoutes(closed, services)
    channelRoutes(closed, services)
    authRoutes(closed, services)
    deviceRoutes(closed, services)
    meRoutes(closed, services)
    oauthRoutes(closed, services)
    factorRoutes(closed, services)
    userRoutes(closed, services)
    socketRoutes(closed, services)
    e2bRoutes(closed, services)
  })
  return app
}

/** One value for each name, or a list where it comes more than once. */
function queryFields(query: string): Record<string, string | string[]> {
  const fields: Record<string, string | string[]> = Object.create(null)
  const all = queryText(query)
  for (const name of new Set(all.keys())) {
    const [value = '', ...more] = all.getAll(name)
    fields[name] = more.length === 0 ? value : [value, ...more]
  }
  return fields
}

/**
 * Clients send `content-type: application/json` also where they have no body. Bytes that are not UTF-8 are refused (RFC 8259 §8.1): read
 * as something else, a path would name another file.
 */
function acceptEmptyJson(app: App): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  const decoder = new TextDecoder('utf-8', { fatal: true })
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (body.length === 0) return done(null, undefined)
    try {
      void parse(request, decoder.decode(Buffer.from(body)), done)
    } catch {
      done(
        new AppError(
          'invalid_request',
          'The body is not UTF-8. Names of files have a text form that is: see docs/files.md.',
        ),
      )
    }
  })
}

function logRequests(app: App, { logger }: Services): void {
  app.addHook('onResponse', async (request: FastifyRequest, reply: FastifyReply) => {
    if (request.ws) return
    logger.info(
      {
        requestId: request.id,
        method: request.method,
        route: request.routeOptions.url ?? 'unknown',
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime * 10) / 10,
        ...traceOf(request),
        ...principalFields(request.principal),
        ...capsuleOf(request.params),
      },
      'request.ended',
    )
  })
}

/** By which the request is found among the traces. */
function traceOf({ span }: FastifyRequest): { traceId?: string } {
  return span?.traceId === undefined ? {} : { traceId: span.traceId }
}

function principalFields(principal: Principal | null) {
  if (principal === null) return {}
  const { kind, id, teamId } = principal
  return kind === 'key' ? { teamId, keyId: id } : { teamId, userId: id }
}

function capsuleOf(params: unknown): { capsuleId?: string } {
  if (typeof params !== 'object' || params === null || !('id' in params)) return {}
  return { capsuleId: String(params.id).slice(0, 64) }
}

/** 405 where the path exists with another method, else 404: to a person as a page. */
function answerUnknownRoutes(app: App, { dashboard }: Services): void {
  const routes: { readonly pattern: RegExp; readonly methods: readonly string[] }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    routes.push({
      pattern: new RegExp(`^${url.replaceAll(/:[a-z]+/g, '[^/]+').replaceAll('*', '.*')}/?$`),
      methods: [method].flat(),
    })
  })
  app.setNotFoundHandler(async (request, reply) => {
    const path = request.url.split('?', 1)[0] ?? ''
    const allowed = routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods)
    if (allowed.length === 0) {
      if (dashboard !== undefined && isPageWanted(request)) return await sendShell(reply.status(404), dashboard)
      throw new AppError('not_found', `There is no ${path.slice(0, 200)}.`)
    }
    void reply.header('allow', [...new Set(allowed)].join(', '))
    throw new AppError('method_not_allowed', `${request.method} is not possible here.`)
  })
}
