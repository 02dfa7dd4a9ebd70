/** Where Node.js keeps the agent of its `fetch`: https://github.com/nodejs/undici/blob/main/lib/global.js */
const AGENT = Symbol.for('undici.globalDispatcher.1')

/**
 * `fetch` that waits for an answer as long as its signal lets it. The one of Node.js gives up after 5 minutes, and a command
 * may run longer before its answer begins. The agent behind it could be told, but no module exports its class.
 */
export function createPatientFetch(): typeof globalThis.fetch {
  let agent: Agent | undefined
  return (input, init) => {
    // There is none before the first call, which is never one that takes long.
    agent ??= patientAgent()
    return globalThis.fetch(input, { ...init, ...(agent ? { dispatcher: agent } : {}) })
  }
}

type Agent = NonNullable<RequestInit['dispatcher']>

function patientAgent(): Agent | undefined {
  const current: unknown = Reflect.get(globalThis, AGENT)
  // A Node.js that keeps it elsewhere: then with its patience.
  if (typeof current !== 'object' || current === null) return undefined
  return Reflect.construct(current.constructor, [{ headersTimeout: 0, bodyTimeout: 0 }]) as Agent // of the agent's own class
}
