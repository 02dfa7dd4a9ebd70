import { randomBytes } from 'node:crypto'
import type { TestCapsule } from './host-client.js'

const COUNTER = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done'
const MEMORY = 'read -r nonce; while read -r question; do echo "$question $nonce"; done'

/** A process that counts, and one that holds a nonce in its memory only: what must never be lost. */
export class Witnesses {
  readonly nonce = randomBytes(12).toString('hex')

  async start(capsule: TestCapsule): Promise<void> {
    await capsule.launch(COUNTER, 'counter')
    await capsule.launch(MEMORY, 'memory', { stdin: true })
    await capsule.input('memory', `${this.nonce}\n`)
    await this.recall(capsule)
  }

  /** Resolves when the process answers with the nonce. */
  async recall(capsule: TestCapsule): Promise<void> {
    const question = randomBytes(6).toString('hex')
    await capsule.input('memory', `${question}\n`)
    await capsule.watch('memory', (output) => output.includes(`${question} ${this.nonce}\n`))
  }

  /** The numbers counted so far, once there are `more` after `past`; every number is there once, in its order. */
  async count(capsule: TestCapsule, past = 0, more = 3): Promise<number> {
    const output = await capsule.watch('counter', (text) => text.split('\n').length > past + more)
    const numbers = output.split('\n').slice(0, -1)
    const wrong = numbers.findIndex((text, index) => text !== String(index))
    if (wrong >= 0) throw new Error(`The counter says ${numbers[wrong]} in line ${wrong}.`)
    return numbers.length
  }
}
