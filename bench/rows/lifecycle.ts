import type { Bench } from '../context.js'
import { FloorQemu } from '../floor-qemu.js'
import { hotGuestsWait, SHAPE } from '../hot-guests.js'
import { type Row, row } from '../report.js'
import { medianSteps, timed } from '../stats.js'

const WARM_EXECS = 3

interface FloorRun {
  readonly runningMs: number
  /** From running vCPUs to the guest agent's first answer. */
  readonly healthMs: number
  /** From running vCPUs to the first command's output. */
  readonly firstExecMs: number
  readonly saveMs: number
}

async function floorRun(floor: FloorQemu): Promise<FloorRun> {
  const restored = await floor.restore()
  try {
    const start = performance.now()
    await restored.guest.waitHealthy()
    const healthMs = performance.now() - start
    await restored.guest.exec('/bin/true')
    const firstExecMs = performance.now() - start
    return { runningMs: restored.runningMs, healthMs, firstExecMs, saveMs: await restored.save() }
  } finally {
    await restored.end()
  }
}

function floorSteps({ runningMs, healthMs, firstExecMs }: FloorRun): { step: string; ms: number }[] {
  return [
    { step: 'restore', ms: runningMs },
    { step: 'health', ms: healthMs },
    { step: 'exec', ms: firstExecMs - healthMs },
  ]
}

/** Creates that restore a snapshot, beside raw QEMU on the same files, turn by turn so that both see the same machine. */
export async function restoreRows({ platform, iterations, log }: Bench): Promise<Row[]> {
  const first = await platform.create(SHAPE)
  await using floor = await FloorQemu.like(platform, first.id)
  await platform.destroy(first.id)
  await floorRun(floor) // the first run finds cold files
  const floors: FloorRun[] = []
  const answers: number[] = []
  const outputs: number[] = []
  const engine: number[] = []
  const steps: (readonly { step: string; ms: number }[])[] = []
  for (let turn = 0; turn < iterations; turn++) {
    floors.push(await floorRun(floor))
    const start = performance.now()
    const capsule = await platform.create(SHAPE)
    answers.push(performance.now() - start)
    await platform.exec(capsule.id, '/bin/true')
    outputs.push(performance.now() - start)
    if (capsule.path !== 'restore') throw new Error(`A create took the path ${capsule.path}, not restore.`)
    const timings = capsule.timings ?? []
    steps.push(timings)
    engine.push(timings.find(({ step }) => step === 'restore')?.ms ?? Number.NaN)
    await platform.destroy(capsule.id)
    log(`restore ${turn + 1}/${iterations}: ${Math.round(outputs.at(-1) ?? 0)} ms to the first output`)
  }
  const running = floors.map(({ runningMs }) => runningMs)
  return [
    row({
      id: 'create.restore.vcpus',
      what: "create, restore path → vCPUs run (host agent's step)",
      unit: 'ms',
      samples: engine,
      floor: running,
      note: `steps, p50 ms: ${medianSteps(steps)}`,
    }),
    row({
      id: 'create.restore.running',
      what: 'create, restore path → running',
      unit: 'ms',
      samples: answers,
      floor: running,
      budget: '≤ 1.3 × raw restore',
      keeps: (ours, raw) => ours <= 1.3 * raw,
      note: 'ours: the answer of POST /v1/capsules, so the guest has answered and has its identity; floor: vCPUs run',
    }),
    row({
      id: 'create.restore.output',
      what: "create, restore path → first command's output",
      unit: 'ms',
      samples: outputs,
      floor: floors.map(({ runningMs, firstExecMs }) => runningMs + firstExecMs),
      budget: '≤ 1.3 × (raw restore + first direct exec)',
      keeps: (ours, raw) => ours <= 1.3 * raw,
      note: `floor, p50 ms: ${medianSteps(floors.map(floorSteps))}`,
    }),
    row({
      id: 'floor.save',
      what: 'raw QEMU: stop and save device state (floor of later rows)',
      unit: 'ms',
      samples: floors.map(({ saveMs }) => saveMs),
    }),
  ]
}

/** Creates that claim a waiting guest, beside warm commands sent straight to the same guest. */
export async function hotRows({ platform, iterations, log }: Bench): Promise<Row[]> {
  const outputs: number[] = []
  const answers: number[] = []
  const firstDirect: number[] = []
  const warm: number[] = []
  const steps: (readonly { step: string; ms: number }[])[] = []
  for (let turn = 0; turn < iterations * 2; turn++) {
    await hotGuestsWait(platform)
    const viaRest = turn % 2 === 0
    const start = performance.now()
    const capsule = await platform.create(SHAPE)
    const answered = performance.now()
    const direct = await platform.direct(capsule.id)
    if (viaRest) await platform.exec(capsule.id, '/bin/true')
    else await direct.exec('/bin/true')
    const ended = performance.now()
    if (capsule.path !== 'hot') throw new Error(`A create took the path ${capsule.path}, not hot.`)
    if (viaRest) {
      answers.push(answered - start)
      outputs.push(ended - start)
      steps.push(capsule.timings ?? [])
    } else firstDirect.push(ended - answered)
    await hotGuestsWait(platform) // the floor is a guest that has the CPU for itself; making the next one is our own cost
    await direct.exec('/bin/true')
    for (let again = 0; again < WARM_EXECS; again++) warm.push((await timed(() => direct.exec('/bin/true'))).ms)
    direct.close()
    await platform.destroy(capsule.id)
    log(`hot ${turn + 1}/${iterations * 2}: ${Math.round(ended - start)} ms to the first output`)
  }
  return [
    row({
      id: 'create.hot.running',
      what: 'create, hot path → running',
      unit: 'ms',
      samples: answers,
      note: `steps, p50 ms: ${medianSteps(steps)}`,
    }),
    row({
      id: 'create.hot.first-direct-exec',
      what: 'first direct exec in a claimed guest',
      unit: 'ms',
      samples: firstDirect,
      floor: warm,
    }),
    row({
      id: 'create.hot.output',
      what: "create, hot path → first command's output",
      unit: 'ms',
      samples: outputs,
      floor: warm,
      budget: '≤ 2 × warm direct exec + 20 ms',
      keeps: (ours, raw) => ours <= 2 * raw + 20,
    }),
  ]
}
