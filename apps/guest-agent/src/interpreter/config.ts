/** Settings of the code interpreter, read once. */
export interface InterpreterConfig {
  readonly port: number
  readonly jupyterPort: number
  /** Where code runs that names no directory. */
  readonly cwd: string
  /** Where the guest agent keeps who this capsule is. */
  readonly identityPath: string
  /** Of Jupyter Server and the kernels. */
  readonly environment: Readonly<Record<string, string>>
}

type Environment = Readonly<Record<string, string | undefined>>

/** Ports are those that clients ask for. */
export function readConfig(env: Environment = process.env): InterpreterConfig {
  return Object.freeze({
    port: 49_999,
    jupyterPort: 8888,
    cwd: '/home/user',
    identityPath: '/run/.wrenn-agent/identity.json',
    environment: {
      HOME: '/root',
      USER: 'root',
      LOGNAME: 'root',
      SHELL: '/bin/bash',
      LANG: 'C.UTF-8',
      PATH: env.PATH || '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    },
  })
}
