/** One broken command and what was found afterwards. */
export interface Outcome {
  readonly command: string
  readonly step: string
  readonly action: string
  found: string
  /** What the capsule had and has no more. */
  lost: string[]
  leaked: string[]
  illegal: string[]
  ms: number
}

/** The table that a run ends with. */
export function formatOutcomes(outcomes: readonly Outcome[]): string {
  const lines = outcomes.map(({ command, step, action, found, lost, leaked, illegal, ms }) =>
    [
      command.padEnd(40),
      step.padEnd(22),
      action.padEnd(5),
      found.padEnd(8),
      ...[lost, leaked, illegal].map((list) => String(list.length).padStart(7)),
      String(Math.round(ms)).padStart(7),
    ].join(' '),
  )
  const total = (key: 'lost' | 'leaked' | 'illegal'): number => outcomes.reduce((sum, one) => sum + one[key].length, 0)
  const head = `${'command'.padEnd(40)} ${'step'.padEnd(22)} does  found       lost  leaked illegal      ms`
  const foot = `${outcomes.length} cases: ${total('lost')} lost, ${total('leaked')} leaked, ${total('illegal')} illegal`
  return [head, ...lines, foot, ''].join('\n')
}
