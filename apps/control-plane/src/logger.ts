import pino from 'pino'

/** One JSON object per line on stdout; credentials never get there. */
export function createLogger(level: string) {
  return pino({
    level,
    base: { app: 'control-plane' },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: {
      paths: [
        'apiKey',
        'key',
        'token',
        'secret',
        'password',
        'envs',
        'headers',
        '*.apiKey',
        '*.key',
        '*.token',
        '*.secret',
        '*.envs',
      ],
      censor: '[redacted]',
    },
  })
}
