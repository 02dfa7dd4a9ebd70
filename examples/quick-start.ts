// A first program: `npm start` in one terminal, then
//   WRENN_API_KEY=$(sudo cat /var/lib/wrenn/api-key) node --import tsx --conditions=wrenn-source examples/quick-start.ts
import { Wrenn } from '@wrenn/sdk'
import { WebSocket } from 'ws'

const wrenn = new Wrenn({
  apiUrl: process.env.WRENN_API_URL ?? 'http://127.0.0.1:8000',
  ...(process.env.WRENN_API_KEY ? { apiKey: process.env.WRENN_API_KEY } : {}),
  webSocket: WebSocket, // Node.js 22 and browsers have their own
})

// Destroyed at the end of the block, also after an error.
await using capsule = await wrenn.capsules.create({ memoryMib: 512 })
console.log(`${capsule.id} runs (${capsule.info.engine}, ${capsule.info.path})`)

// A string is a shell line; an array is a program and its arguments.
const { stdout } = await capsule.exec('uname -sr; echo $((6 * 7))')
console.log(stdout)

// Files: text, bytes, blobs or streams.
await capsule.files.write(
  '/tmp/hello.py',
  'import time\nfor n in range(3): print("tick", n, flush=True); time.sleep(0.3)\n',
)

// Output as it comes; a dropped connection is picked up at the next byte.
const process_ = await capsule.stream(['python3', '/tmp/hello.py'])
for await (const event of process_) {
  if (event.type === 'stdout') process.stdout.write(event.data)
  if (event.type === 'exit') console.log(`exit code ${event.exitCode}`)
}
