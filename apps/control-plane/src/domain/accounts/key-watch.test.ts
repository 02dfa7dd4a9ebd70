import { silentLogger } from '@wrenn/base'
import { expect, it } from 'vitest'
import { openDatabase } from '../../store/database.js'
import { KeyWatch } from './key-watch.js'
import type { Principal } from './principal.js'

const brief: Principal = {
  kind: 'key',
  id: 'key-brief',
  name: 'brief',
  teamId: 'team-1',
  scopes: [],
  permissions: new Set(),
  expiresAt: new Date(Date.now() + 100),
}

it('ends what a key opened when its time is over, also while no database answers, and leaves what may go on', async () => {
  const db = openDatabase({ url: 'postgres://nobody@127.0.0.1:1/none' })
  const watch = new KeyWatch({ db, logger: silentLogger })
  const ended: string[] = []
  watch.follow(brief, ({ code }) => ended.push(code))
  watch.follow({ ...brief, expiresAt: undefined }, () => ended.push('lasting'))
  try {
    await expect.poll(() => ended, { timeout: 10_000 }).toEqual(['unauthorized'])
  } finally {
    watch.stop()
    await db.destroy()
  }
})
