import { AppError, isErrno } from '@wrenn/base'
import { EventType, type Filesystem, type WatchDirRequest } from '@wrenn/protocol/guest'
import { describe, type Entry, type FoundEntry } from '../files/entry.js'
import { encodeEntries } from '../files/entry-encoding.js'
import { EventQueue } from '../files/event-queue.js'
import { onPath } from '../files/file-error.js'
import { listTree } from '../files/listing.js'
import type { MetadataStore } from '../files/metadata.js'
import { makeDirectory, move, remove } from '../files/operations.js'
import { DirectoryWatcher, type WatchEvent } from '../files/watcher.js'
import type { WatcherRegistry } from '../files/watcher-registry.js'
import type { Identity } from '../identity/identity.js'
import type { GuestUser, UserDirectory } from '../identity/users.js'
import { clientPath } from '../process/environment.js'
import { asUser } from '../system/as-user.js'
import { withRightsFor, withRightsForAll } from '../system/rights.js'
import type { Tools } from '../system/tools.js'
import { keepaliveOf } from './keepalive.js'
import { Preencoded } from './preencoded.js'
import type { RpcCall, ServiceHandlers } from './router.js'

interface FilesystemDependencies {
  readonly identity: Identity
  readonly users: UserDirectory
  readonly metadata: MetadataStore
  readonly watchers: WatcherRegistry
  readonly tools: Tools
}

/** The service `filesystem.Filesystem`. */
export function filesystemService(dependencies: FilesystemDependencies): ServiceHandlers<typeof Filesystem> {
  const { identity, users, metadata, watchers, tools } = dependencies
  const located = (path: string, call: RpcCall): { path: string; user: GuestUser } => {
    const user = identity.userOf(call.headers)
    return { user, path: clientPath(path, user, identity.values.defaultCwd) }
  }
  const entryAt = async (path: string, user: GuestUser, place = path): Promise<{ entry: Entry }> => {
    const found = onPath(path, () => asUser(user, () => describe(place, users)))
    await metadata.complete([found])
    return { entry: { ...found.entry, path } }
  }
  const watchAt = (
    request: Omit<WatchDirRequest, '$typeName'>,
    call: RpcCall,
    onEvent: (event: WatchEvent) => void,
  ) => {
    const { path, user } = located(request.path, call)
    const { recursive, allowNetworkMounts } = request
    return withRightsFor(call.caller, user, (rights) => {
      return new DirectoryWatcher(path, { recursive, allowNetworkMounts, user: rights }, onEvent)
    })
  }
  const wireEvent = (event: WatchEvent, includeEntry: boolean) => {
    const entry = includeEntry ? describeIfThere(event, users) : undefined
    return { name: event.name, type: event.type, ...(entry === undefined ? {} : { entry: entry.entry }) }
  }

  return {
    stat: (request, call) => {
      const { path, user } = located(request.path, call)
      return withRightsForAll(call.caller, user, (rights) => entryAt(path, rights))
    },
    makeDir: (request, call) => {
      const { path, user } = located(request.path, call)
      withRightsFor(call.caller, user, (rights) => makeDirectory(path, rights, user))
      return withRightsForAll(call.caller, user, (rights) => entryAt(path, rights))
    },
    move: async (request, call) => {
      const { path: source, user } = located(request.source, call)
      const { path: destination } = located(request.destination, call)
      const place = await withRightsForAll(call.caller, user, (rights) =>
        move(source, destination, { user: rights, owner: user }, tools),
      )
      return await withRightsForAll(call.caller, user, (rights) => entryAt(destination, rights, place))
    },
    listDir: async (request, call) => {
      const { path, user } = located(request.path, call)
      const found = await withRightsForAll(call.caller, user, async (rights) => {
        const root = onPath(path, () => asUser(rights, () => describe(path, users)))
        requireDirectory(root, path, user)
        return await listPath(path, Math.max(1, request.depth), rights, users)
      })
      await metadata.complete(found)
      const entries = found.map(({ entry }) => entry)
      return new Preencoded({ entries }, () => encodeEntries(entries))
    },
    remove: async (request, call) => {
      const { path, user } = located(request.path, call)
      await withRightsForAll(call.caller, user, (rights) => remove(path, rights))
      return {}
    },
    watchDir: async (request, call, events) => {
      const queue = new EventQueue()
      const watcher = watchAt(request, call, (event) => queue.push(event))
      events.onClose(() => queue.wake())
      try {
        await events.send({ event: { case: 'start', value: {} } })
        while (!events.isClosed) {
          await queue.wait(keepaliveOf(call))
          const waiting = queue.take()
          if (waiting.length === 0) await events.send({ event: { case: 'keepalive', value: {} } })
          for (const event of waiting) {
            await events.send({ event: { case: 'filesystem', value: wireEvent(event, request.includeEntry) } })
          }
        }
      } finally {
        watcher.close()
      }
    },
    createWatcher: (request, call) => {
      const queue = new EventQueue()
      const watcher = watchAt(request, call, (event) => queue.push(event))
      return { watcherId: watchers.add({ queue, watcher, includeEntry: request.includeEntry }) }
    },
    getWatcherEvents: (request) => {
      const { queue, includeEntry } = watchers.find(request.watcherId)
      return { events: queue.take().map((event) => wireEvent(event, includeEntry)) }
    },
    removeWatcher: (request) => {
      watchers.remove(request.watcherId)
      return {}
    },
  }
}

/** A link to a directory can be listed too. */
function requireDirectory(found: FoundEntry, path: string, user: GuestUser): void {
  if (found.isDirectory || isLinkToDirectory(found)) return
  throw new AppError('not_a_directory', `path is not a directory: ${path} (user ${user.name})`)
}

function isLinkToDirectory({ entry }: FoundEntry): boolean {
  return entry.isSymlink === true && entry.permissions?.startsWith('d') === true
}

async function listPath(
  path: string,
  depth: number,
  user: GuestUser,
  users: UserDirectory,
): Promise<readonly FoundEntry[]> {
  try {
    return await listTree(path, depth, user, users)
  } catch (error) {
    return onPath(path, () => {
      throw error
    })
  }
}

function describeIfThere(event: WatchEvent, users: UserDirectory): FoundEntry | undefined {
  if (event.type === EventType.REMOVE || event.type === EventType.RENAME) return undefined
  try {
    return describe(event.path, users)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG', 'EACCES')) return undefined
    throw error
  }
}
