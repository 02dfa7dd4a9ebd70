// What network tests run inside namespaces: one command per call, answers as JSON lines.
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { request } from 'node:http'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

const commands = {
  /** Greets each connection with its source address, then echoes; prints datagrams. */
  serve(port) {
    const udp = createSocket('udp4').on('message', (text, from) => print({ udp: `${text}`, from: from.address }))
    const tcp = createServer((socket) => {
      socket.on('error', () => {})
      socket.write(`${socket.remoteAddress}\n`)
      socket.pipe(socket)
    })
    udp.bind(Number(port), '0.0.0.0', () => tcp.listen(Number(port), '0.0.0.0', () => print('ready')))
  },
  connect(host, port) {
    const socket = connect({ host, port: Number(port), timeout: 3000 })
    const finish = (result) => {
      print(result)
      socket.destroy()
    }
    socket.once('error', ({ code }) => finish(code))
    socket.once('timeout', () => finish('ETIMEDOUT'))
    socket.once('data', (text) => finish(`from ${text}`.trim()))
  },
  /** Sends each line of stdin and prints what comes back, or how the connection ended. */
  session(host, port) {
    const socket = connect({ host, port: Number(port), timeout: 3000 })
    socket.once('error', ({ code }) => print(code))
    socket.once('timeout', () => print('ETIMEDOUT'))
    socket.once('close', () => process.exit())
    socket.on('data', (text) => print(`${text}`.trim()))
    createInterface(process.stdin).on('line', (line) => socket.write(line))
  },
  async resolve(server, name) {
    const resolver = new Resolver({ timeout: 2000, tries: 1 })
    resolver.setServers([server])
    print(await resolver.resolve4(name).catch(({ code }) => code))
  },
  head(address, name) {
    // Not fetch: it does not let us name the host.
    request({ host: address, method: 'HEAD', path: '/debian/', headers: { host: name } }, (response) => {
      print(response.statusCode)
      response.destroy()
    }).end()
  },
  send(source, host, port, text) {
    const socket = createSocket('udp4')
    socket.bind(0, source, () =>
      socket.send(text, Number(port), host, (error) => {
        print(error?.code ?? 'sent')
        socket.close()
      }),
    )
  },
}

const [command, ...args] = process.argv.slice(2)
await commands[command](...args)
