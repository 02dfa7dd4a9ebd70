import { AppError, capsuleIds } from '@wrenn/base'
import { capsuleStates } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { createSandboxSchema, toCapsuleSpec } from './create-spec.js'
import { metadataFilter } from './list-query.js'
import { egressOf, networkOf } from './network.js'
import { capsuleIdOf, sandboxState, statesShownAs } from './sandbox.js'
import { snapshotNameSchema, templateNameOf, toSnapshot } from './template-id.js'
import { e2bErrorBody, isE2bTarget } from './wire.js'

const specOf = (body: object, defaultTimeoutSec = 300) =>
  toCapsuleSpec(createSandboxSchema.parse({ templateID: 'base', ...body }), defaultTimeoutSec)

function codeOf(action: () => unknown): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    return AppError.from(error).code
  }
}

describe('a create', () => {
  it('makes a capsule that is killed after its time, belongs to `user`, and is never idle', () => {
    expect(specOf({})).toMatchObject({
      template: 'base',
      timeout_sec: 0,
      fallback: { user: 'user', cwd: '/home/user' },
      auto_resume: false,
      port_access: 'public',
      agentAccess: true,
      life: { lifetimeSec: 300, onEnd: 'kill' },
    })
    expect(specOf({}).egress).toBeUndefined()
    expect(specOf({}, 15).life).toEqual({ lifetimeSec: 15, onEnd: 'kill' })
  })

  it('takes over all that the domain has', () => {
    const body = {
      templateID: 'team/ready:default',
      timeout: 62,
      metadata: { 'a b': 'c&d', '': 'x'.repeat(4096) },
      envVars: { A: '1' },
      secure: true,
      allow_internet_access: false,
      network: { allowOut: ['1.1.1.1'], denyOut: ['10.0.0.0/8'], allowPublicTraffic: false },
      autoPause: true,
      autoResume: { enabled: true },
    }
    expect(specOf(body)).toMatchObject({
      template: 'ready',
      labels: body.metadata,
      envs: { A: '1' },
      auto_resume: true,
      port_access: 'private',
      egress: { internet: false, allow: ['1.1.1.1'], deny: ['10.0.0.0/8'] },
      life: { lifetimeSec: 62, onEnd: 'pause' },
    })
  })

  it.each([
    ['volumeMounts', { volumeMounts: [{ name: 'v', path: '/mnt' }] }],
    ['mcp', { mcp: { github: {} } }],
    ['iam', { iam: { role: 'x' } }],
    ['network.egressProxy', { network: { egressProxy: 'socks5://x' } }],
    ['network.maskRequestHost', { network: { maskRequestHost: 'example:80' } }],
    ['network.httpsPorts', { network: { httpsPorts: [443] } }],
  ])('refuses %s by its name', (name, body) => {
    expect(() => specOf(body)).toThrow(`${name} is not supported`)
    expect(codeOf(() => specOf(body))).toBe('not_supported')
  })

  it('bears what is sent empty', () => {
    expect(() => specOf({ volumeMounts: [], mcp: {}, iam: null, network: { rules: {} } })).not.toThrow()
  })

  it('refuses what contradicts itself, and a pause without memory', () => {
    const privateButOpen = { secure: false, network: { allowPublicTraffic: false } }
    expect(codeOf(() => specOf(privateButOpen))).toBe('invalid_request')
    expect(codeOf(() => specOf({ autoPauseMemory: false }))).toBe('invalid_request')
    const filesOnlyButWakes = { autoPause: true, autoPauseMemory: false, autoResume: { enabled: true } }
    expect(codeOf(() => specOf(filesOnlyButWakes))).toBe('invalid_request')
    expect(codeOf(() => specOf({ autoPause: true, autoPauseMemory: false }))).toBe('not_supported')
  })

  it('refuses a field that it does not know', () => {
    expect(() => specOf({ timout: 5 })).toThrow('did you mean timeout')
  })
})

describe('a network', () => {
  it('has headers for hosts, of which the later ones win, and shows their names', () => {
    const rules = {
      'api.example': [
        { transform: { headers: { Authorization: 'old', 'X-Team': 'blue' } } },
        {},
        { transform: { headers: { authorization: 'new' } } },
      ],
      'nothing.example': [{ transform: {} }],
    }
    const wish = {
      internet: true,
      allow: [],
      deny: [],
      rules: [{ host: 'api.example', headers: { authorization: 'new', 'x-team': 'blue' } }],
    }
    expect(egressOf({ rules }, undefined)).toEqual(wish)
    const shown = { ...wish, rules: [{ host: 'api.example', headers: ['authorization'] }] }
    expect(networkOf(shown).rules).toEqual({ 'api.example': [{ transform: { headers: { authorization: '' } } }] })
  })

  it('refuses tokens that another platform would make, and values that are none, without showing one', () => {
    const of = (value: string) => () =>
      egressOf({ rules: { 'api.example': [{ transform: { headers: { a: value } } }] } }, undefined)
    // biome-ignore lint/suspicious/noTemplateCurlyInString: their SDK sends it as it is
    expect(codeOf(of('Bearer ${e2b.identity.tokens.aws}'))).toBe('not_supported')
    for (const value of ['', 'two\r\nlines', 'hunter2 ']) {
      expect(codeOf(of(value))).toBe('invalid_request')
      expect(of(value)).not.toThrow('hunter2')
      expect(of(value)).toThrow('api.example')
    }
  })

  it('without wishes is no policy', () => {
    expect(egressOf({}, undefined)).toBeUndefined()
    expect(egressOf({ allowOut: [], denyOut: [] }, true)).toBeUndefined()
  })

  it('that denies everything is the internet switched off, and is told as that', () => {
    const off = { internet: false, allow: ['1.1.1.1'], deny: [] }
    expect(egressOf({ allowOut: ['1.1.1.1'], denyOut: ['0.0.0.0/0'] }, undefined)).toEqual(off)
    expect(egressOf({ allowOut: ['1.1.1.1'] }, false)).toEqual(off)
    expect(networkOf(off)).toEqual({ allowOut: ['1.1.1.1'], denyOut: ['0.0.0.0/0'] })
    expect(networkOf({ internet: true, allow: [], deny: ['9.9.9.9'] })).toEqual({ allowOut: [], denyOut: ['9.9.9.9'] })
  })
})

describe('a metadata filter', () => {
  it('is encoded twice more than a query is, as published clients send it', () => {
    // What arrives as `metadata=a%252520b%3Dc%252526d`, after the query was taken apart.
    expect(metadataFilter('a%2520b=c%2526d')).toEqual({ 'a b': 'c&d' })
    expect(metadataFilter('user=1&team=x')).toEqual({ user: '1', team: 'x' })
    expect(metadataFilter(undefined)).toEqual({})
  })

  it('that is none is refused', () => {
    for (const none of ['a%25=1', 'a=%2500', 'a%2500=1']) {
      expect([none, codeOf(() => metadataFilter(none))]).toEqual([none, 'invalid_request'])
    }
  })
})

describe('a sandbox', () => {
  it('is running, paused or gone', () => {
    expect(Object.fromEntries(capsuleStates.map((state) => [state, sandboxState(state)]))).toEqual({
      pending: 'running',
      starting: 'running',
      running: 'running',
      pausing: 'running',
      paused: 'paused',
      resuming: 'paused',
      hibernated: 'paused',
      stopping: undefined,
      stopped: undefined,
      missing: 'running',
      error: undefined,
    })
    expect(statesShownAs(['paused'])).toEqual(['paused', 'resuming', 'hibernated'])
  })

  it('is named by its capsule, with or without the client id that old clients add', () => {
    const id = capsuleIds.create()
    expect(capsuleIdOf(id)).toBe(id)
    expect(capsuleIdOf(`${id}-00000000`)).toBe(id)
    for (const none of ['', 'nobody', `${id}-x`, '../x']) {
      expect(codeOf(() => capsuleIdOf(none))).toBe('capsule_not_found')
    }
  })
})

describe('a template id', () => {
  it('may have a namespace and the tag default', () => {
    for (const id of ['base', 'base:default', 'team/base', 'team/base:default']) expect(templateNameOf(id)).toBe('base')
    expect(toSnapshot('ready')).toEqual({ snapshotID: 'ready:default', names: ['ready:default'] })
    expect(snapshotNameSchema.parse('team/ready:default')).toBe('ready')
  })

  it('keeps another tag, and has no other form', () => {
    for (const id of ['web:v2', 'team/web:v2']) expect(templateNameOf(id)).toBe('web:v2')
    for (const id of ['a/b/c', ':x', 'a:b:c', '']) expect(codeOf(() => templateNameOf(id))).toBe('template_not_found')
    expect(snapshotNameSchema.safeParse('ready:v2').success).toBe(false)
    expect(snapshotNameSchema.safeParse('has space').success).toBe(false)
  })
})

describe('an error', () => {
  it('has its status as a number', () => {
    expect(e2bErrorBody(new AppError('capsule_not_found', 'Gone.'))).toEqual({ code: 404, message: 'Gone.' })
    expect(e2bErrorBody(new AppError('invalid_state', 'Paused.'))).toEqual({ code: 409, message: 'Paused.' })
  })

  it('has that form below the paths of these clients only', () => {
    for (const target of ['/sandboxes', '/sandboxes/x?y', '/v2/x', '/v3', '/templates/a', '/volumes?x', '/secrets']) {
      expect([target, isE2bTarget(target)]).toEqual([target, true])
    }
    for (const target of ['/v1/capsules', '/health', '/', '/sandboxesx', '*', '//sandboxes']) {
      expect([target, isE2bTarget(target)]).toEqual([target, false])
    }
  })
})
