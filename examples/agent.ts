// An agent that breaks its machine and goes back: `npm start` in one terminal, then
//   WRENN_API_KEY=$(sudo cat /var/lib/wrenn/api-key) node --import tsx --conditions=wrenn-source examples/agent.ts
// With OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_MODEL) a real model decides; without, a script plays the model.
import { type Capsule, Wrenn } from '@wrenn/sdk'
import { WebSocket } from 'ws'

/** Of the chat completions that many servers speak; only what is used here. */
interface Message {
  readonly role: 'system' | 'user' | 'assistant' | 'tool'
  readonly content: string | null
  readonly tool_calls?: readonly ToolCall[]
  readonly tool_call_id?: string
}
interface ToolCall {
  readonly id: string
  readonly type: 'function'
  readonly function: { readonly name: string; readonly arguments: string }
}
type Model = (messages: readonly Message[]) => Promise<Message>

const TASK = 'Write /root/primes.py, which prints the first five primes, and run it.'
const SYSTEM =
  'You have a computer. `run` runs a shell command in it. `checkpoint` saves the whole computer, memory and disk, `rollback` goes back to the last checkpoint. Say DONE when the task is done.'
const MAX_TURNS = 20

const noArguments = { type: 'object', properties: {} }
const tools = [
  { name: 'checkpoint', description: 'Save the computer as it is.', parameters: noArguments },
  { name: 'rollback', description: 'Go back to the last checkpoint.', parameters: noArguments },
  {
    name: 'run',
    description: 'Run a shell command.',
    parameters: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'] },
  },
].map((tool) => ({ type: 'function', function: tool }))

/** What a tool says is all that the model learns. */
async function useTool(capsule: Capsule, { function: { name, arguments: text } }: ToolCall): Promise<string> {
  if (name === 'checkpoint') return `saved as ${(await capsule.checkpoint()).id}`
  if (name === 'rollback') {
    const last = (await capsule.checkpoints()).toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime())[0]
    if (last === undefined) return 'there is no checkpoint'
    await capsule.rollback(last)
    return 'the computer is as it was'
  }
  if (name !== 'run') return `there is no tool ${name}`
  const { command } = JSON.parse(text)
  const { stdout, stderr, exitCode } = await capsule.exec(String(command), { timeoutMs: 60_000 })
  return JSON.stringify({ stdout, stderr, exit_code: exitCode })
}

async function work(capsule: Capsule, model: Model): Promise<void> {
  const messages: Message[] = [
    { role: 'system', content: SYSTEM },
    { role: 'user', content: TASK },
  ]
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    const said = await model(messages)
    messages.push(said)
    if (said.content) console.log(`model: ${said.content}`)
    if (said.tool_calls === undefined || said.tool_calls.length === 0) return
    for (const call of said.tool_calls) {
      console.log(`→ ${call.function.name} ${call.function.arguments}`)
      const content = await useTool(capsule, call).catch((error: unknown) => `failed: ${String(error)}`)
      console.log(`← ${content.slice(0, 200)}`)
      messages.push({ role: 'tool', tool_call_id: call.id, content })
    }
  }
}

/** Any server that speaks chat completions. */
function remoteModel(apiKey: string): Model {
  const base = process.env.OPENAI_BASE_URL ?? 'https://api.openai.com/v1'
  const model = process.env.OPENAI_MODEL ?? 'gpt-4o-mini'
  return async (messages) => {
    const response = await fetch(`${base}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model, messages, tools }),
    })
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
    const { choices } = (await response.json()) as { choices: readonly { message: Message }[] }
    const message = choices[0]?.message
    if (message === undefined) throw new Error('The model said nothing.')
    return message
  }
}

/** Plays a model that makes a grave mistake, notices it, and goes back. */
function scriptedModel(): Model {
  const script: readonly (readonly [string, object] | string)[] = [
    ['checkpoint', {}],
    ['run', { command: 'rm -rf /usr/bin /usr/lib/python3*' }],
    ['run', { command: 'python3 --version' }],
    ['rollback', {}],
    [
      'run',
      {
        command:
          "printf 'n=[x for x in range(2,99) if all(x%%d for d in range(2,x))]\\nprint(*n[:5])\\n' > /root/primes.py",
      },
    ],
    ['run', { command: 'python3 /root/primes.py' }],
    'DONE',
  ]
  let at = 0
  return async (messages) => {
    const next = script[at++] ?? 'DONE'
    if (typeof next === 'string') return { role: 'assistant', content: `${messages.at(-1)?.content ?? ''} ${next}` }
    const [name, given] = next
    const call = { id: `call-${at}`, type: 'function', function: { name, arguments: JSON.stringify(given) } } as const
    return { role: 'assistant', content: null, tool_calls: [call] }
  }
}

const wrenn = new Wrenn({
  apiUrl: process.env.WRENN_API_URL ?? 'http://127.0.0.1:8000',
  ...(process.env.WRENN_API_KEY ? { apiKey: process.env.WRENN_API_KEY } : {}),
  webSocket: WebSocket,
})
await using capsule = await wrenn.capsules.create({ memoryMib: 512 })
const { OPENAI_API_KEY: key } = process.env
await work(capsule, key ? remoteModel(key) : scriptedModel())
