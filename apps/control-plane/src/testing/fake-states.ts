import type { FakeHost } from '@wrenn/testkit'
import type { OpenTeamStates } from '../domain/stored/index.js'

/** Settings of a platform with an object store, which nobody asks. */
export const storeEnv = {
  WRENN_ENCRYPTION_KEY: '11'.repeat(32),
  WRENN_OBJECT_STORE: 's3://capsules',
  WRENN_OBJECT_STORE_ENDPOINT: 'http://127.0.0.1:9',
  WRENN_OBJECT_STORE_ACCESS_KEY: 'a',
  WRENN_OBJECT_STORE_SECRET_KEY: 'b',
}

/** What hosts have stored, which are fakes, too. @param fake one of them; the others share its store */
export function fakeStates(fake: () => FakeHost, onCollect: () => void = () => {}): OpenTeamStates {
  return async () => ({
    remove: async (id) => {
      const { store } = fake()
      await store.get(id)?.capture.dispose()
      store.delete(id)
    },
    collect: async () => {
      onCollect()
      return { removed: 0, bytes: 0 }
    },
  })
}
