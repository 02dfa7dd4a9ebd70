import { readFileSync, statSync } from 'node:fs'
import { AppError } from '@wrenn/base'

/** A user of the guest's userland with all groups, so that a process gets what a login would give it. */
export interface GuestUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
  readonly shell: string
  /** Supplementary groups, the primary one not repeated. */
  readonly groups: readonly number[]
}

interface Account {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
  readonly shell: string
}

interface Group {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

/** A parsed file that is read again only when it changed. */
class CachedTable<Row> {
  #stamp = ''
  #rows: readonly Row[] = []

  constructor(
    private readonly path: string,
    private readonly parse: (fields: readonly string[]) => Row | undefined,
  ) {}

  rows(): readonly Row[] {
    const stat = statSync(this.path, { throwIfNoEntry: false })
    const stamp = stat === undefined ? 'absent' : `${stat.ino}:${stat.mtimeMs}:${stat.size}`
    if (stamp !== this.#stamp) {
      this.#rows = stat === undefined ? [] : this.#load()
      this.#stamp = stamp
    }
    return this.#rows
  }

  #load(): readonly Row[] {
    const rows: Row[] = []
    for (const line of readFileSync(this.path, 'utf8').split('\n')) {
      const row = this.parse(line.split(':'))
      if (row !== undefined) rows.push(row)
    }
    return rows
  }
}

function parseAccount(fields: readonly string[]): Account | undefined {
  const [name, , uid, gid, , home, shell] = fields
  if (!name || !uid || !gid) return undefined
  return { name, uid: Number(uid), gid: Number(gid), home: home || '/', shell: shell || '/bin/sh' }
}

function parseGroup(fields: readonly string[]): Group | undefined {
  const [name, , gid, members] = fields
  if (!name || !gid) return undefined
  return { name, gid: Number(gid), members: (members ?? '').split(',') }
}

interface Names {
  readonly users: ReadonlyMap<number, string>
  readonly groups: ReadonlyMap<number, string>
}

const NAMES_FRESH_MS = 100

/** Users and groups of the guest's userland, as its `/etc/passwd` and `/etc/group` say now. */
export class UserDirectory {
  readonly #accounts: CachedTable<Account>
  readonly #groups: CachedTable<Group>
  #names: Names = { users: new Map(), groups: new Map() }
  #namesReadAtMs = Number.NEGATIVE_INFINITY

  constructor(etc = '/etc') {
    this.#accounts = new CachedTable(`${etc}/passwd`, parseAccount)
    this.#groups = new CachedTable(`${etc}/group`, parseGroup)
  }

  /**
   * A user by name, or by number as container images write it (`1000`, `1000:1000`). Root exists even without `/etc/passwd`.
   * @throws AppError `unauthorized` for an unknown name
   */
  find(name: string): GuestUser {
    const account = this.#accounts.rows().find((row) => row.name === name)
    if (account !== undefined) return this.#withGroups(account)
    if (name === 'root') return { name, uid: 0, gid: 0, home: '/root', shell: '/bin/sh', groups: [] }
    const numeric = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(name)
    if (numeric === null) throw new AppError('unauthorized', `invalid username: '${name}'`)
    return this.#byNumber(Number(numeric[1]), numeric[2])
  }

  /** The name of a user id, or the number itself; a name just changed may be shown late by `NAMES_FRESH_MS`. */
  userName(uid: number): string {
    return this.#freshNames().users.get(uid) ?? String(uid)
  }

  /** As {@link userName}, of a group. */
  groupName(gid: number): string {
    return this.#freshNames().groups.get(gid) ?? String(gid)
  }

  /** Looking at both files for each of ten thousand entries would cost more than the entries themselves. */
  #freshNames(): Names {
    if (performance.now() - this.#namesReadAtMs > NAMES_FRESH_MS) {
      this.#names = {
        users: new Map(this.#accounts.rows().map((row) => [row.uid, row.name])),
        groups: new Map(this.#groups.rows().map((row) => [row.gid, row.name])),
      }
      this.#namesReadAtMs = performance.now()
    }
    return this.#names
  }

  #byNumber(uid: number, group: string | undefined): GuestUser {
    const account = this.#accounts.rows().find((row) => row.uid === uid)
    const gid = group === undefined ? account?.gid : Number(group)
    if (account !== undefined) return { ...this.#withGroups(account), gid: gid ?? account.gid }
    return { name: String(uid), uid, gid: gid ?? 0, home: '/', shell: '/bin/sh', groups: [] }
  }

  #withGroups(account: Account): GuestUser {
    const memberships = this.#groups.rows().filter((row) => row.members.includes(account.name))
    const groups = [...new Set(memberships.map((row) => row.gid))].filter((gid) => gid !== account.gid)
    return { ...account, groups }
  }
}
