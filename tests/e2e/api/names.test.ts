import { afterAll, beforeAll, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { type NameServer, startNameServer } from '../harness/name-server.js'

const { platform } = usePlatform()
const capsule = useCapsule()
/** Of a name server far away. */
const DELAY_MS = 100
let server: NameServer

beforeAll(async () => {
  server = await startNameServer(platform, DELAY_MS)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

/** What `getaddrinfo` gives for `count` names at once, a thread each; result → how many got it. */
async function lookUpAtOnce(count: number, zone: string): Promise<Record<string, number>> {
  const program = `
import collections, json, socket, threading
found = [] # appended to at once by many threads, which counting is not safe for
start = threading.Event()
def look_up(name):
    start.wait()
    try:
        found.append(socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        found.append(str(error))
threading.stack_size(256 * 1024)
threads = [threading.Thread(target=look_up, args=("n%d.${zone}" % n,)) for n in range(${count})]
for thread in threads: thread.start()
start.set()
for thread in threads: thread.join()
print(json.dumps(collections.Counter(found)))`
  const { stdout, stderr } = await capsule().exec('python3', ['-c', program], { timeout_sec: 120 })
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout)
}

it('150 look-ups at once are all answered', async () => {
  expect(await lookUpAtOnce(150, 'wrenn.test')).toEqual({ '192.0.2.1': 150 })
})

it('1,000 look-ups at once are all answered', async () => {
  expect(await lookUpAtOnce(1000, 'wrenn.test')).toEqual({ '192.0.2.1': 1000 })
})

it('150 look-ups at once whose answers are too long for UDP are all answered over TCP', async () => {
  const before = server.asked.tcp
  expect(await lookUpAtOnce(150, 'long.wrenn.test')).toEqual({ '192.0.2.1': 150 })
  expect(server.asked.tcp - before).toBeGreaterThanOrEqual(300)
})
