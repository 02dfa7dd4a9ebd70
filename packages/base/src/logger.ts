/** What our code needs of a logger; pino satisfies it. Event names are stable dotted verbs (`capsule.started`). */
export interface Logger {
  debug(fields: Readonly<Record<string, unknown>>, event: string): void
  info(fields: Readonly<Record<string, unknown>>, event: string): void
  warn(fields: Readonly<Record<string, unknown>>, event: string): void
  error(fields: Readonly<Record<string, unknown>>, event: string): void
  /** One that adds `fields` to each line, such as `capsuleId`. */
  child(fields: Readonly<Record<string, unknown>>): Logger
}

const nothing = (): void => {}

/** Drops everything: for tests, and the default of whatever may run without a logger. */
export const silentLogger: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silentLogger,
}
