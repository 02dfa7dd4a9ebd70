import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'

const AT_ONCE = 100

/** WebSockets that say nothing, opened a hundred at a time. */
export async function openIdle(url: string, host: string, count: number): Promise<void> {
  const { hostname, port } = new URL(url)
  for (let opened = 0; opened < count; opened += AT_ONCE) {
    const now = Math.min(AT_ONCE, count - opened)
    await Promise.all(Array.from({ length: now }, () => open(hostname, Number(port), host)))
  }
}

function open(hostname: string, port: number, host: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, hostname)
    const key = randomBytes(16).toString('base64')
    const head = [
      'GET / HTTP/1.1',
      `Host: ${host}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${key}`,
    ]
    socket.write(`${head.join('\r\n')}\r\n\r\n`)
    socket.once('error', reject)
    socket.once('data', (data) => {
      const answer = data.toString('latin1')
      if (answer.startsWith('HTTP/1.1 101')) resolve(socket)
      else reject(new Error(answer))
    })
  })
}
