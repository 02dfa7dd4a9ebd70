import { createServer, type Server, type Socket } from 'node:net'
import { errorText } from '@wrenn/base'
import {
  type FilterAnswer,
  type FilterAsk,
  filterRequestSchema,
  MAXIMUM_MESSAGE_BYTES,
} from '../host/filter/protocol.js'

/** Answers the host agent's requests, a line each, in their order. @param answer may throw: that is told */
export function createControlServer(answer: (ask: FilterAsk) => Omit<FilterAnswer, 'id'>): Server {
  return createServer((socket) => {
    let rest = ''
    socket.setEncoding('utf8')
    socket.on('error', () => socket.destroy())
    socket.on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > MAXIMUM_MESSAGE_BYTES) socket.destroy()
      for (const line of lines) serve(socket, line, answer)
    })
  })
}

function serve(socket: Socket, line: string, answer: (ask: FilterAsk) => Omit<FilterAnswer, 'id'>): void {
  const { id, ask } = filterRequestSchema.parse(JSON.parse(line))
  let answered: FilterAnswer
  try {
    answered = { id, ...answer(ask) }
  } catch (error) {
    answered = { id, error: errorText(error) }
  }
  socket.write(`${JSON.stringify(answered)}\n`)
}
