import {
  type CapsuleCommand,
  type CapsuleState,
  capsuleCommands,
  capsuleStates,
  isAsleep,
  isUsable,
  nextState,
  wireStatus,
} from '@wrenn/protocol'
import { isLegal, type Request, requests } from './domain/capsules/index.js'

const meanings: Readonly<Record<CapsuleState, string>> = {
  pending: 'Accepted; nothing was made yet.',
  starting: 'Its host makes it, by a create or a fork.',
  running: 'Commands run, files can be read and written.',
  pausing: 'Its memory and disk are being saved; it still counts as running.',
  paused: 'Memory, processes and disk are saved. It uses no CPU and no memory.',
  resuming: 'It is on its way back to where it was.',
  hibernated: 'Its state is in the object store alone; no host holds anything for it. It goes on on any host.',
  stopping: 'Being destroyed; nothing brings it back.',
  stopped: 'Destroyed, with its files and checkpoints. Its record stays for a while.',
  missing: 'Its host is silent, or answers without it. It comes back as what its host says, or ends as lost.',
  error:
    'It ended by itself or never started; `exit` says why. With a saved state behind it, it can be resumed; with a checkpoint, rolled back.',
}

const asked: Readonly<Record<Request, string>> = {
  pause: 'POST /v1/capsules/{id}/pause, or the idle rule',
  resume: 'POST /v1/capsules/{id}/resume, or use with `auto_resume`',
  hibernate: 'POST /v1/capsules/{id}/hibernate; it stays `paused`, and can be resumed, until its state is stored',
  fork: 'POST /v1/capsules/{id}/fork',
  checkpoint: 'POST /v1/capsules/{id}/checkpoints',
  rollback: 'POST /v1/capsules/{id}/checkpoints/{cid}/rollback',
  snapshot: 'POST /v1/snapshots',
  destroy: 'DELETE /v1/capsules/{id}',
}

const happens: Readonly<Record<Exclude<CapsuleCommand, Request>, string>> = {
  start: 'the control plane hands it to a host',
  started: 'the host says that it runs',
  paused: 'the host says that it is paused, also by itself: short of memory, of space, or at its restart',
  hibernated: 'its state is in the object store alone; out of `resuming`, its new host could not have it',
  destroyed: 'the host says that nothing is left of it',
  exited: 'the guest ended by itself',
  lost: 'its host is silent, or answers without it',
  found: 'its host has it again; out of `hibernated`, the database was restored from before a resume',
  failed: 'what was under way did not work; the capsule is what it was before, if it was anything',
}

/** The page about states and what moves them, made of the tables that the product runs by. */
export function lifecyclePage(): string {
  return `# Lifecycle

Generated from \`packages/protocol/src/states.ts\` by \`npm run generate\`.

A capsule is in one of these states. \`state\` in the API is exact; \`status\` is the nearest of a closed set that clients can rely on.

| State | Status | Meaning |
|---|---|---|
${capsuleStates.map((state) => `| \`${state}\` | \`${wireStatus(state)}\`${marks(state)} | ${meanings[state]} |`).join('\n')}

▶ can be used. ☾ wakes when it is used, with \`auto_resume\`.

\`\`\`mermaid
stateDiagram-v2
${arrows().join('\n')}
\`\`\`

The diagram leaves out \`destroy\`, which every state allows, and what does not move a capsule.

## What people ask for

A cell is the state afterwards; an empty one means 409 \`invalid_state\`, whose message says what is possible. Every request is an
operation: it goes on when its caller leaves, happens once for one \`Idempotency-Key\`, and is taken over when a control plane dies. A
pause that meets a pause under way joins it, and a resume a resume. \`destroy\` wins over whatever is under way. A resume out of
\`error\` needs a saved state, or \`{"from": "disk"}\`, a rollback a checkpoint; either makes it run again.

${matrix(requests, (state, request) => (isLegal(state, request) ? nextState(state, request) : undefined))}

${requests.map((request) => `- \`${request}\`: ${asked[request]}`).join('\n')}

## What happens

${matrix(events, nextState)}

${events.map((event) => `- \`${event}\`: ${happens[event]}`).join('\n')}
`
}

function isEvent(command: CapsuleCommand): command is keyof typeof happens {
  return Object.hasOwn(happens, command)
}

const events = capsuleCommands.filter(isEvent)

function marks(state: CapsuleState): string {
  return `${isUsable(state) ? ' ▶' : ''}${isAsleep(state) ? ' ☾' : ''}`
}

/** One arrow for all commands between the same two states. */
function arrows(): string[] {
  const labels = new Map<string, CapsuleCommand[]>()
  for (const state of capsuleStates) {
    for (const command of capsuleCommands) {
      const next = nextState(state, command)
      if (next === undefined || next === state || command === 'destroy') continue
      const arrow = `${state} --> ${next}`
      labels.set(arrow, [...(labels.get(arrow) ?? []), command])
    }
  }
  return [
    '  [*] --> pending',
    ...[...labels].map(([arrow, commands]) => `  ${arrow}: ${commands.join(', ')}`),
    '  stopped --> [*]',
  ]
}

function matrix<Command extends CapsuleCommand>(
  commands: readonly Command[],
  after: (state: CapsuleState, command: Command) => CapsuleState | undefined,
): string {
  const cell = (next: CapsuleState | undefined): string => (next === undefined ? '' : `\`${next}\``)
  const rows = capsuleStates.map(
    (state) => `| **\`${state}\`** | ${commands.map((command) => cell(after(state, command))).join(' | ')} |`,
  )
  return [
    `| | ${commands.map((command) => `\`${command}\``).join(' | ')} |`,
    `|---|${commands.map(() => '---|').join('')}`,
    ...rows,
  ].join('\n')
}
