import { ConnectError } from '@connectrpc/connect'
import { afterAll, beforeAll, inject } from 'vitest'
import { engineOf } from '../../e2e/harness/host.js'
import { eventually } from '../../e2e/harness/wait.js'
import { HostAgent } from './host-agent.js'
import type { Site } from './site.js'
import { Subject } from './subject.js'

/** A host agent for all tests of a file, with a bystander: a capsule that whatever is done to others must not touch. */
export class World {
  readonly site: Site = inject('site')
  readonly agent = new HostAgent(this.site)
  #bystander: Subject | undefined

  get bystander(): Subject {
    if (this.#bystander === undefined) throw new Error('The bystander exists once the tests run.')
    return this.#bystander
  }

  /** @param env of the host agent */
  use(env: Readonly<Record<string, string>> = {}): this {
    beforeAll(async () => {
      await this.agent.start(env)
      this.#bystander = await Subject.create(this.agent)
    })
    afterAll(async () => {
      await this.agent[Symbol.asyncDispose]()
    })
    return this
  }

  async subject(): Promise<Subject> {
    return await Subject.create(this.agent)
  }

  async destroy({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.destroyCapsule({ capsuleId })
  }

  /** Ends a capsule's engine process the hard way. */
  async killEngine(id: string): Promise<void> {
    process.kill((await engineOf(this.site.dir, id)).pid, 'SIGKILL')
  }

  async untilState(subject: Subject, state: string): Promise<void> {
    await eventually(`${subject.id} to be ${state}`, async () => ((await subject.state()) === state ? true : undefined))
  }
}

export interface Refused {
  readonly code: string
  readonly message: string
}

/** What a call that must fail says. */
export async function refusal(call: Promise<unknown>): Promise<Refused> {
  try {
    await call
  } catch (error) {
    const { metadata, rawMessage } = ConnectError.from(error)
    return { code: metadata.get('wrenn-error-code') ?? 'none', message: rawMessage }
  }
  throw new Error('The call did not fail.')
}
