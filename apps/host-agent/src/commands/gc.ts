import { connect as connectSocket } from 'node:net'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import { type CollectGarbageResponse, HostService } from '@wrenn/protocol/host'

/** Removing large files takes a while on a busy disk. */
const GC_TIMEOUT_MS = 10 * 60_000

interface GarbageReport {
  readonly items: readonly { readonly kind: string; readonly name: string; readonly bytes: number }[]
  readonly freedBytes: number
}

/**
 * Asks the running agent for its garbage: only it knows what is in use.
 * @throws AppError `host_unavailable` when none runs
 */
export async function collectGarbage(socketPath: string, dryRun: boolean): Promise<GarbageReport> {
  const authority = 'http://host-agent'
  const sessionManager = new Http2SessionManager(authority, {}, { createConnection: () => connectSocket(socketPath) })
  const transport = createConnectTransport({ httpVersion: '2', baseUrl: authority, sessionManager })
  try {
    return toReport(await createClient(HostService, transport).collectGarbage({ dryRun }, { timeoutMs: GC_TIMEOUT_MS }))
  } catch (thrown) {
    throw toAppError(thrown, socketPath)
  } finally {
    sessionManager.abort()
  }
}

function toReport({ items, freedBytes }: CollectGarbageResponse): GarbageReport {
  return {
    items: items.map(({ kind, name, bytes }) => ({ kind, name, bytes: Number(bytes) })),
    freedBytes: Number(freedBytes),
  }
}

function toAppError(thrown: unknown, socketPath: string): AppError {
  const error = ConnectError.from(thrown)
  const code = error.metadata.get(ERROR_CODE_HEADER)
  if (code !== null) return new AppError(code, error.rawMessage, { cause: thrown })
  if (error.code === Code.DeadlineExceeded)
    return new AppError('timeout', 'The host agent did not end the collection in 10 minutes; it goes on.')
  if (error.code === Code.Unimplemented)
    return new AppError(
      'host_unavailable',
      'The host agent that runs is older than this command: restart the platform.',
    )
  return new AppError('host_unavailable', `No host agent answers at ${socketPath}: start the platform first.`, {
    cause: thrown,
  })
}
