import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'

/** Settings of one agent, read once. Parsed by hand: a schema library would cost start-up time in every guest. */
export interface AgentConfig {
  readonly port: number
  readonly host: string
  /** Directory with `bin`, `lib` and `pty.node` of the agent drive; absent on a development machine, where the system's tools serve. */
  readonly toolsDir: string | undefined
  /** Output logs and the record of files with metadata. */
  readonly stateDir: string
  /** A cgroup2 directory the agent may make children in; absent: process trees are found by session. */
  readonly cgroupDir: string | undefined
  /**
   * A directory that is gone with the machine's memory and that nobody else fills, for pipes and for what a restarted agent must
   * still know; absent: it knows nothing.
   */
  readonly runDir?: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** @throws AppError `invalid_config` */
export function readConfig(env: Environment = process.env): AgentConfig {
  const toolsDir = env.WRENN_TOOLS_DIR || undefined
  return Object.freeze({
    port: readPort(env.WRENN_AGENT_PORT || '49983'),
    host: env.WRENN_AGENT_HOST || '0.0.0.0',
    toolsDir,
    stateDir: env.WRENN_STATE_DIR || join(tmpdir(), `wrenn-agent-${process.pid}`),
    cgroupDir: env.WRENN_CGROUP_DIR || (toolsDir === undefined ? undefined : '/sys/fs/cgroup'),
    runDir: env.WRENN_RUN_DIR || (toolsDir === undefined ? undefined : '/run/.wrenn-agent'),
  })
}

function readPort(text: string): number {
  const port = Number(text)
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port
  throw new AppError('invalid_config', `WRENN_AGENT_PORT must be a port number, got "${text}".`)
}
