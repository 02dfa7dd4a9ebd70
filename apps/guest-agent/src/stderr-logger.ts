import type { Logger } from '@wrenn/base'

type Level = 'debug' | 'info' | 'warn' | 'error'

/** JSON lines on standard error, which the guest's console shows. A full logging library would cost start-up time. */
export function stderrLogger(bindings: Readonly<Record<string, unknown>> = {}): Logger {
  const write = (level: Level, fields: Readonly<Record<string, unknown>>, event: string): void => {
    process.stderr.write(`${JSON.stringify({ level, event, ...bindings, ...fields })}\n`)
  }
  return {
    debug: () => {},
    info: (fields, event) => write('info', fields, event),
    warn: (fields, event) => write('warn', fields, event),
    error: (fields, event) => write('error', fields, event),
    child: (fields) => stderrLogger({ ...bindings, ...fields }),
  }
}
