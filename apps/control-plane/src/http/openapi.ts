import swagger from '@fastify/swagger'
import {
  authFrameSchema,
  execStartFrameSchema,
  processInputFrameSchema,
  processOutputFrameSchema,
  ptyInputFrameSchema,
  ptyOutputFrameSchema,
  ptyStartFrameSchema,
} from '@wrenn/protocol'
import { createJsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { App } from './context.js'

const frames = {
  AuthFrame: authFrameSchema,
  ExecStartFrame: execStartFrameSchema,
  ProcessInputFrame: processInputFrameSchema,
  ProcessOutputFrame: processOutputFrameSchema,
  PtyStartFrame: ptyStartFrameSchema,
  PtyInputFrame: ptyInputFrameSchema,
  PtyOutputFrame: ptyOutputFrameSchema,
}

const formBody = {
  required: true,
  content: {
    'multipart/form-data': {
      schema: {
        type: 'object',
        required: ['path', 'file'],
        properties: { path: { type: 'string' }, user: { type: 'string' }, file: { type: 'string', format: 'binary' } },
      },
    },
  },
}
const rawBody = {
  required: true,
  content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } },
}

/** Bodies that no validator sees, because they are streams. */
const streamedBodies: Readonly<Record<string, Readonly<Record<string, object>>>> = {
  '/v1/capsules/{id}/files/write': { post: formBody },
  '/v1/capsules/{id}/files/stream/write': { post: formBody },
  '/v1/capsules/{id}/files': { put: rawBody },
}

/** Generates the OpenAPI 3.1 document from the schemas of the routes. */
export async function describeApi(app: App, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Wrenn API', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
      servers: [{ url: '/' }],
      tags: [
        { name: 'capsules', description: 'MicroVMs that run your code.' },
        { name: 'usage', description: 'What capsules used, by the ledger of their changes.' },
        { name: 'checkpoints', description: 'Points in time of a capsule, to go back to.' },
        { name: 'processes', description: 'Commands and terminals inside a capsule.' },
        { name: 'files', description: 'Files inside a capsule.' },
        { name: 'templates', description: 'What capsules are created from.' },
        { name: 'keys', description: 'API keys of the team.' },
        {
          name: 'accounts',
          description: 'People: sign-up, sessions, their own accounts and, for admins, those of others.',
        },
        { name: 'audit', description: 'What happened in the team.' },
        { name: 'channels', description: 'What happens in the team, sent to webhooks and chats.' },
        { name: 'system', description: 'Health of the platform.' },
      ],
      components: {
        securitySchemes: {
          apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
          session: { type: 'http', scheme: 'bearer' },
        },
      },
      security: [{ apiKey: [] }, { session: [] }],
    },
    transform: createJsonSchemaTransform({ skipList: [] }),
    transformObject: jsonSchemaTransformObject,
  })
}

interface Document {
  readonly paths?: Readonly<Record<string, Readonly<Record<string, object>>>>
  readonly components?: { readonly schemas?: Readonly<Record<string, object>> }
}

/** The whole document: what the routes say, the bodies that are streams, and the frames of the WebSockets. */
export function apiDocument(app: App): object {
  // Plain JSON; the generator's own type is a union of OpenAPI 2, 3.0 and 3.1.
  const generated: unknown = app.swagger()
  const document = generated as Document
  const paths: Record<string, object> = { ...document.paths }
  for (const [path, methods] of Object.entries(streamedBodies)) {
    const item: Record<string, object> = { ...document.paths?.[path] }
    for (const [method, requestBody] of Object.entries(methods)) item[method] = { ...item[method], requestBody }
    paths[path] = item
  }
  const components = { ...document.components, schemas: { ...document.components?.schemas, ...frameSchemas() } }
  return { ...document, paths, components }
}

function frameSchemas(): Record<string, object> {
  return Object.fromEntries(
    Object.entries(frames).map(([name, schema]) => {
      const { $schema: _, ...described } = z.toJSONSchema(schema, { io: 'input' })
      return [name, described]
    }),
  )
}
