import { Code, ConnectError } from '@connectrpc/connect'
import { silentLogger } from '@wrenn/base'
import { ERROR_CODE_HEADER, RETRY_AFTER_HEADER } from '@wrenn/protocol'
import Fastify from 'fastify'
import { describe, expect, it } from 'vitest'
import { createErrorHandler } from './errors.js'

async function answerTo(thrown: Error) {
  const app = Fastify()
  app.setErrorHandler(createErrorHandler(silentLogger))
  app.get('/', async () => {
    throw thrown
  })
  return await app.inject('/')
}

const refusal = (more: Record<string, string>) =>
  new ConnectError('The host agent is starting. Preparing images.', Code.Unavailable, {
    [ERROR_CODE_HEADER]: 'host_unavailable',
    ...more,
  })

describe('the answer while a host gets ready', () => {
  it('says what it waits for, what to do, and when to come again', async () => {
    const answer = await answerTo(refusal({ [RETRY_AFTER_HEADER]: '2' }))
    expect(answer.statusCode).toBe(503)
    expect(answer.headers['retry-after']).toBe('2')
    const { error } = answer.json()
    expect(error).toMatchObject({ code: 'host_unavailable', details: { retryAfterSec: 2 } })
    expect(error.message).toBe('The host agent is starting. Preparing images.')
    expect(error.hint).toContain('GET /ready')
  })

  it('names no time when the host names none', async () => {
    const answer = await answerTo(refusal({}))
    expect(answer.statusCode).toBe(503)
    expect(answer.headers).not.toHaveProperty('retry-after')
    expect(answer.json().error).not.toHaveProperty('details')
  })
})
