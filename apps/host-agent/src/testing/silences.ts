import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import type { FakeGuest } from '@wrenn/testkit'
import { GUEST_PORT } from '../capsule/guest/client.js'

/** Ways for a guest not to be reached, each beginning when it is called; disposing ends what it needs. */
export const silences = {
  /** Stopped, out of CPU or memory: its kernel takes connections and bytes, nobody answers. */
  'an agent that is stopped': async (guest: FakeGuest): Promise<AsyncDisposable> => {
    guest.mute()
    return nothing
  },
  /** Its kernel refuses connections. */
  'an agent that is dead': async (guest: FakeGuest): Promise<AsyncDisposable> => {
    await guest.close()
    return nothing
  },
  'an agent that is killed in a loop': async (guest: FakeGuest): Promise<AsyncDisposable> => {
    guest.resetsConnections = true
    guest.dropConnections()
    return nothing
  },
  /** A dropping rule, a link that is down: open connections are silent, new ones lose their SYN. */
  'a network that drops everything': async (guest: FakeGuest, address: string): Promise<AsyncDisposable> => {
    guest.mute()
    await guest.stopListening()
    return await dropConnections(address)
  },
} as const

export type Silence = keyof typeof silences

const nothing: AsyncDisposable = { [Symbol.asyncDispose]: async () => {} }

/** Listens, says so, and stands still. */
const LISTEN = `
const { parentPort, workerData } = require('node:worker_threads')
require('node:net').createServer().listen({ ...workerData.at, backlog: 1 }, () => {
  parentPort.postMessage('up')
  setImmediate(() => Atomics.wait(workerData.never, 0, 0))
})`
/** Linux keeps one connection more than the backlog, and drops the SYNs of the rest. */
const QUEUED = 2

/** A listener that stands still and whose queue is full: the kernel drops every SYN that comes now. */
async function dropConnections(host: string): Promise<AsyncDisposable> {
  const never = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(LISTEN, { eval: true, workerData: { at: { host, port: GUEST_PORT }, never } })
  await once(worker, 'message')
  const queued = await Promise.all(Array.from({ length: QUEUED }, () => connected(host)))
  return {
    [Symbol.asyncDispose]: async () => {
      for (const socket of queued) socket.destroy()
      await worker.terminate()
    },
  }
}

async function connected(host: string): Promise<Socket> {
  const socket = connect(GUEST_PORT, host)
  await once(socket, 'connect')
  return socket.on('error', () => {})
}
