// What network tests run inside namespaces: one command per call, answers as JSON lines.
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer, request } from 'node:http'
import { createServer as createHttpsServer, request as requestHttps } from 'node:https'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

/** TLS whose ends know each other by a key instead of certificates. */
const psk = Buffer.from('of tests alone')
const tls = { ciphers: 'PSK', maxVersion: 'TLSv1.2' }

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
    socket.once('connect', () => socket.setTimeout(0))
    socket.once('timeout', () => print('ETIMEDOUT'))
    socket.once('close', () => process.exit())
    socket.on('data', (text) => print(`${text}`.trim()))
    createInterface(process.stdin).on('line', (line) => socket.write(line))
  },
  /** Writes each line of stdin to every connection, and prints how they end. */
  talk(port) {
    const sockets = new Set()
    const tcp = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', ({ code }) => print(code))
      socket.on('close', (hadError) => hadError || print('closed'))
      socket.resume()
      print('connected')
    })
    createInterface(process.stdin).on('line', (line) => {
      for (const socket of sockets) socket.write(line)
    })
    tcp.listen(Number(port), '0.0.0.0', () => print('ready'))
  },
  /** From the first datagram on sends its sender a number each 10 ms, and prints it. */
  drip(port) {
    const udp = createSocket('udp4').on('message', (_text, from) => {
      let number = 0
      setInterval(() => {
        number += 1
        udp.send(String(number), from.port, from.address)
        print(number)
      }, 10)
    })
    udp.bind(Number(port), '0.0.0.0', () => print('ready'))
  },
  /** Asks for numbers and prints those that come. */
  catch(host, port) {
    const udp = createSocket('udp4').on('message', (text) => print(Number(text)))
    udp.send('go', Number(port), host)
  },
  /** Connects again and again until it is told to stop; prints how often it was greeted, and how often refused. */
  knock(host, port) {
    const counts = { open: 0, refused: 0 }
    let stopping = false
    const next = () => {
      if (stopping) {
        print(counts)
        process.exit()
      }
      const socket = connect({ host, port: Number(port), timeout: 3000 })
      const finish = (key) => {
        socket.removeAllListeners().on('error', () => {})
        socket.resetAndDestroy()
        counts[key] += 1
        setImmediate(next)
      }
      socket.once('error', () => finish('refused'))
      socket.once('timeout', () => finish('refused'))
      socket.once('data', () => finish('open'))
    }
    createInterface(process.stdin).on('line', () => {
      stopping = true
    })
    next()
    print('ready')
  },
  async resolve(server, name) {
    const resolver = new Resolver({ timeout: 2000, tries: 1 })
    resolver.setServers([server])
    print(await resolver.resolve4(name).catch(({ code }) => code))
  },
  /** A site: HTTP on 80 and 8080, TLS on 443 and 853, each of which says who it is and for whom it was asked. Port 7777 echoes. */
  async site(label) {
    const http = () =>
      createHttpServer(({ headers, url }, response) => response.end(`${label} ${headers.host} ${url}`)).on(
        'upgrade',
        ({ headers }, socket) => {
          socket.on('error', () => {})
          socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: ${headers.upgrade}\r\nconnection: upgrade\r\n\r\n`)
          socket.pipe(socket)
        },
      )
    const secure = () =>
      createTlsServer({ ...tls, pskCallback: () => psk }, (socket) => {
        socket.on('error', () => {})
        socket.write(`${label} ${socket.servername || 'nobody'}`)
        socket.pipe(socket)
      })
    const echo = createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket))
    const servers = [
      [http(), 80],
      [http(), 8080],
      [secure(), 443],
      [secure(), 853],
      [echo, 7777],
    ]
    await Promise.all(
      servers.map(([server, port]) => new Promise((resolve) => server.listen(port, '0.0.0.0', resolve))),
    )
    const udp = createSocket('udp4').on('message', (text, from) => udp.send(text, from.port, from.address))
    udp.bind(443, '0.0.0.0', () => print('ready'))
  },
  /** HTTPS with a certificate, and its key, from files; answers with the headers that it was asked with. */
  api(cert, key, port) {
    const credentials = { cert: readFileSync(cert), key: readFileSync(key) }
    const server = createHttpsServer(credentials, ({ headers }, response) => response.end(JSON.stringify(headers)))
    server.listen(Number(port), '0.0.0.0', () => print('ready'))
  },
  /** Asks a host at an address by HTTPS, trusting the certificates of a file alone; prints the answer, or why there is none. */
  get(address, port, name, ca) {
    const options = {
      host: address,
      port: Number(port),
      servername: name,
      headers: { host: name },
      ca: readFileSync(ca),
    }
    const outgoing = requestHttps(options, async (response) => {
      let text = ''
      for await (const chunk of response) text += chunk
      print([response.statusCode, text])
    })
    outgoing.on('error', ({ code }) => print(code))
    outgoing.end()
  },
  /** Greets by TLS and prints the greeting. */
  tls(host, port, servername = '') {
    const named = servername === '' ? {} : { servername }
    const credentials = { pskCallback: () => ({ psk, identity: 'guest' }), checkServerIdentity: () => undefined }
    const socket = connectTls({ ...tls, ...credentials, ...named, host, port: Number(port), timeout: 20_000 })
    const finish = (result) => {
      print(result)
      socket.destroy()
    }
    socket.once('error', ({ code }) => finish(code))
    socket.once('timeout', () => finish('ETIMEDOUT'))
    socket.once('data', (text) => finish(`${text}`))
  },
  /** Sends text (latin1, with escapes of JSON) in one piece or a byte at a time, and prints all that comes until the end. */
  async say(host, port, text, pace = 'whole') {
    const socket = connect({ host, port: Number(port), timeout: 20_000, noDelay: true })
    let heard = ''
    const finish = (result) => {
      print(result)
      process.exit()
    }
    socket.on('data', (chunk) => {
      heard += chunk.toString('latin1')
      if (heard.length > 4096) finish(heard)
    })
    socket.once('error', ({ code }) => finish([heard, code]))
    socket.once('timeout', () => finish([heard, 'ETIMEDOUT']))
    socket.once('end', () => finish([heard, 'end']))
    const bytes = Buffer.from(JSON.parse(text), 'latin1')
    if (pace === 'whole') socket.write(bytes)
    else for (const byte of bytes) await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
  },
  /** A TLS connection that stays: sends each line of stdin and prints what comes back, or how it ended. */
  secure(host, port, servername) {
    const credentials = { pskCallback: () => ({ psk, identity: 'guest' }), checkServerIdentity: () => undefined }
    const socket = connectTls({ ...tls, ...credentials, servername, host, port: Number(port) })
    socket.once('error', ({ code }) => print(code))
    socket.once('close', () => process.exit())
    socket.on('data', (text) => print(`${text}`.trim()))
    createInterface(process.stdin).on('line', (line) => socket.write(line))
  },
  /** Sends a datagram and prints the answer. */
  datagram(host, port, text) {
    const socket = createSocket('udp4')
    const finish = (result) => {
      print(result)
      socket.close()
    }
    const timer = setTimeout(finish, 3000, 'ETIMEDOUT')
    socket.on('error', ({ code }) => {
      clearTimeout(timer)
      finish(code)
    })
    socket.on('message', (answer) => {
      clearTimeout(timer)
      finish(`${answer}`)
    })
    socket.connect(Number(port), host, () => socket.send(text))
  },
  /** Answers with the addresses of a JSON object by name; other names do not exist. Prints who was asked for. */
  names(table) {
    const known = JSON.parse(table)
    const udp = createSocket('udp4').on('message', (query, from) => {
      const labels = []
      let at = 12
      for (; query[at] > 0; at += query[at] + 1) labels.push(query.toString('latin1', at + 1, at + 1 + query[at]))
      const name = labels.join('.').toLowerCase()
      const addresses = query.readUInt16BE(at + 1) === 1 ? (known[name] ?? []) : []
      const header = Buffer.from(query.subarray(0, 12))
      header.writeUInt16BE(known[name] === undefined ? 0x8183 : 0x8180, 2)
      header.writeUInt16BE(addresses.length, 6)
      header.writeUInt32BE(0, 8)
      const records = addresses.map((text) =>
        Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...text.split('.').map(Number)]),
      )
      print(name)
      udp.send(Buffer.concat([header, query.subarray(12, at + 5), ...records]), from.port, from.address)
    })
    udp.bind(53, '0.0.0.0', () => print('ready'))
  },
  /** Answers every question, `delay` ms later, with the address 192.0.2.1, for AAAA with none. */
  answer(delay) {
    const udp = createSocket({ type: 'udp4', recvBufferSize: 2 ** 22 })
    udp.on('message', (query, from) => {
      const isA = query.readUInt16BE(query.length - 4) === 1
      const header = Buffer.from(query.subarray(0, 12))
      header.writeUInt16BE(0x8180, 2)
      header.writeUInt16BE(isA ? 1 : 0, 6)
      const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1])
      const answer = Buffer.concat([header, query.subarray(12), ...(isA ? [record] : [])])
      setTimeout(() => udp.send(answer, from.port, from.address), Number(delay))
    })
    udp.bind(53, '0.0.0.0', () => print('ready'))
  },
  /** So many look-ups at once, as resolvers make them: a socket each, which asks for A and AAAA; how many got both in time. */
  async lookups(server, count) {
    const message = (index, type) => {
      const name = Buffer.from(`n${index}`)
      const header = [index >> 8, index & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
      return Buffer.from([...header, name.length, ...name, 7, ...Buffer.from('example'), 0, 0, type, 0, 1])
    }
    const lookUp = (index) =>
      new Promise((resolve) => {
        const socket = createSocket('udp4')
        let answers = 0
        const finish = (found) => {
          clearTimeout(timer)
          socket.close()
          resolve(found)
        }
        const timer = setTimeout(finish, 5000, false)
        socket.on('message', () => {
          answers += 1
          if (answers === 2) finish(true)
        })
        for (const type of [1, 28]) socket.send(message(index, type), 53, server)
      })
    const found = await Promise.all(Array.from({ length: Number(count) }, (_, index) => lookUp(index)))
    print(found.filter((each) => each).length)
  },
  /** Asks as fast as it can until it is killed, and listens to no answer. */
  flood(server) {
    const socket = createSocket('udp4')
    const query = Buffer.from([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, ...Buffer.from('dead'), 0, 0, 1, 0, 1])
    let sent = 0
    const more = () => {
      query.write((sent & 0xffff).toString(16).padStart(4, '0'), 13)
      sent += 1
      if (sent === 20_000) print('flooding')
      socket.send(query, 53, server, more)
    }
    more()
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
