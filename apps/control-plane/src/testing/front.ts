import { createServer, request } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'

/** A server in front of others. */
export interface Front extends AsyncDisposable {
  readonly url: string
}

/** Hands each request, and each connection that is upgraded, to the next of some servers, as whatever spreads connections does. */
export async function startFront(targets: () => readonly string[], port = 0): Promise<Front> {
  let turn = 0
  const next = () => {
    const urls = targets()
    const { hostname, port } = new URL(urls[turn++ % urls.length] ?? '')
    return { host: hostname, port: Number(port) }
  }
  const front = createServer((asked, answer) => {
    const { method, url: path, rawHeaders: headers } = asked
    const onward = request({ ...next(), method, path, headers, setHost: false }, (answered) => {
      answer.writeHead(answered.statusCode ?? 502, answered.statusMessage, answered.rawHeaders)
      answered.pipe(answer)
      answered.once('close', () => {
        if (!answered.complete) answer.destroy()
      })
    })
    onward.on('error', () => answer.destroy())
    answer.once('close', () => onward.destroy())
    asked.pipe(onward)
  })
  const sockets = new Set<Socket>()
  front.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  front.on('upgrade', (asked, client, head) => {
    const lines = asked.rawHeaders.flatMap((name, at, all) => (at % 2 === 0 ? [`${name}: ${all[at + 1]}`] : []))
    const onward = connect(next(), () => {
      onward.write(`${asked.method} ${asked.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
      onward.write(head)
      client.pipe(onward).pipe(client)
    })
    client.on('error', () => onward.destroy()).on('close', () => onward.destroy())
    onward.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
  await new Promise<void>((resolve) => front.listen(port, '127.0.0.1', resolve))
  const { port: bound } = front.address() as AddressInfo // a TCP listener has one
  return {
    url: `http://127.0.0.1:${bound}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy() // upgraded ones are not Node's to close
      await new Promise((resolve) => front.close(resolve))
    },
  }
}
