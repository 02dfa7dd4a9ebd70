/** How much clients may make us hold, together and each. */
export interface FairQueueLimits {
  /** Tasks that wait, of all clients and of one. */
  readonly waiting: number
  readonly waitingPerClient: number
  /** Tasks that run, of all clients and of one. */
  readonly running: number
  readonly runningPerClient: number
  /** So many tasks of a client may run whatever the others do. */
  readonly runningAssured: number
}

interface Client<T> {
  readonly name: string
  readonly waiting: T[]
  running: number
}

/** Tasks begun in one go, before what has arrived meanwhile is read: a burst must not overflow the socket's buffer. */
const STARTS_PER_TURN = 32

/**
 * Runs tasks of many clients, each client's in their order and the clients in turn, so that nobody's burst delays another by more than
 * a turn. When too many wait, the one with the most loses its newest.
 */
export class FairQueue<T> {
  readonly #limits: FairQueueLimits
  readonly #run: (task: T) => Promise<void>
  readonly #onDrop: (task: T) => void
  /** Those with tasks; who was served last stands last. */
  readonly #clients = new Map<string, Client<T>>()
  #waiting = 0
  #running = 0
  #turn: NodeJS.Immediate | undefined

  /** `run` never rejects. `onDrop` is told of a task that waited and will not run. */
  constructor(limits: FairQueueLimits, run: (task: T) => Promise<void>, onDrop: (task: T) => void) {
    this.#limits = limits
    this.#run = run
    this.#onDrop = onDrop
  }

  /** Clients that something is remembered of. */
  get clients(): number {
    return this.#clients.size
  }

  /** False when the client has too many waiting; a later `push` of another client may still drop the task. */
  push(name: string, task: T): boolean {
    const client = this.#clients.get(name) ?? { name, waiting: [], running: 0 }
    if (client.waiting.length >= this.#limits.waitingPerClient) return false
    if (this.#waiting >= this.#limits.waiting && !this.#makeRoom(client)) return false
    this.#clients.set(name, client)
    client.waiting.push(task)
    this.#waiting += 1
    this.#wake()
    return true
  }

  /** Forgets what waits; what runs comes to its end. */
  clear(): void {
    clearImmediate(this.#turn)
    this.#turn = undefined
    for (const client of this.#clients.values()) client.waiting.length = 0
    this.#waiting = 0
  }

  #makeRoom(asking: Client<T>): boolean {
    let longest = asking
    for (const client of this.#clients.values()) {
      if (client.waiting.length > longest.waiting.length) longest = client
    }
    const dropped = longest === asking ? undefined : longest.waiting.pop()
    if (dropped === undefined) return false
    this.#waiting -= 1
    this.#onDrop(dropped)
    return true
  }

  #wake(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined
      if (this.#startSome() >= STARTS_PER_TURN) this.#wake()
    })
  }

  #startSome(): number {
    let started = 0
    let before = -1
    while (started < STARTS_PER_TURN && started !== before) {
      before = started
      for (const client of [...this.#clients.values()]) {
        if (started < STARTS_PER_TURN && this.#startNext(client)) started += 1
      }
    }
    return started
  }

  #startNext(client: Client<T>): boolean {
    const { running, runningPerClient, runningAssured } = this.#limits
    const hasPlace = client.running < runningAssured || (this.#running < running && client.running < runningPerClient)
    const task = hasPlace ? client.waiting.shift() : undefined
    if (task === undefined) return false
    this.#waiting -= 1
    this.#running += 1
    client.running += 1
    this.#clients.delete(client.name)
    this.#clients.set(client.name, client)
    void this.#run(task).finally(() => this.#ended(client))
    return true
  }

  #ended(client: Client<T>): void {
    this.#running -= 1
    client.running -= 1
    if (client.running === 0 && client.waiting.length === 0) this.#clients.delete(client.name)
    if (this.#waiting > 0) this.#wake()
  }
}
