// Serves a web app from a capsule: `npm start` in one terminal, then
//   WRENN_API_KEY=$(sudo cat /var/lib/wrenn/api-key) node --import tsx --conditions=wrenn-source examples/web-app.ts
import { request } from 'node:http'
import { Wrenn } from '@wrenn/sdk'
import { WebSocket } from 'ws'

const APP = `
import http.server, json, os

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"path": self.path, "host": os.uname().nodename}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 8080), App).serve_forever()
`

const wrenn = new Wrenn({
  apiUrl: process.env.WRENN_API_URL ?? 'http://127.0.0.1:8000',
  ...(process.env.WRENN_API_KEY ? { apiKey: process.env.WRENN_API_KEY } : {}),
  webSocket: WebSocket,
})

await using capsule = await wrenn.capsules.create({ idleTimeoutMs: 60_000 })
await capsule.files.write('/root/app.py', APP)
await capsule.start(['python3', '/root/app.py'], { tag: 'app' })

// Anybody may open it; `portAccess: 'private'` asks for a token.
const url = new URL(await capsule.url(8080))
console.log(`${url.href} works in a browser`)

/**
 * Browsers and curl find `*.localhost` by themselves. Node.js asks the system, which may not: so we connect to the platform and say
 * by `Host` which capsule and port are meant.
 */
async function get(path: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port: url.port, path, headers: { host: url.host } }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (text) => {
        body += text
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(body)
        else reject(new Error(`${response.statusCode}: ${body}`))
      })
    })
    asked.on('error', reject)
    asked.end()
  })
}

/** The server needs a moment to listen: until then the platform answers that the port is closed. */
async function getSoon(path: string): Promise<string> {
  const deadline = Date.now() + 60_000
  for (;;) {
    try {
      return await get(path)
    } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
}

console.log('answer:', await getSoon('/hello'))

// Asleep it costs no CPU and no memory; the next request wakes it, and the server goes on.
await capsule.pause()
console.log('paused:', (await capsule.refresh()).state)
console.log('answer:', await get('/again'))
