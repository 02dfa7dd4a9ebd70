import { type ObjectStore, type ObjectStoreConfig, openObjectStore, type StoreOptions } from '@wrenn/object-store'
import { makeBucket, rgwKind, type S3Server, type S3ServerKind, swiftKind } from '@wrenn/testkit'
import { afterAll, beforeAll, describe } from 'vitest'

/** What a server is known to do beside what all must. */
interface Known {
  readonly kind: S3ServerKind
  readonly conditionalWrites: boolean
  /** Whether it refuses signatures for another region. */
  readonly regions: boolean
}

const servers: readonly Known[] = [
  { kind: rgwKind, conditionalWrites: true, regions: false },
  { kind: swiftKind, conditionalWrites: false, regions: true },
]

let buckets = 0

/** The server of a suite, once its tests run. */
export interface ServerUnderTest {
  readonly known: Known
  readonly server: S3Server
  /** The settings for a bucket of its own that is made now. */
  config(): Promise<ObjectStoreConfig>
  /** A store of such a bucket; it is closed in the end. */
  open(options?: StoreOptions): Promise<ObjectStore>
}

/** Runs the suites on each kind of server; one that is not installed is left out by name. */
export function describeServers(suites: Readonly<Record<string, (under: ServerUnderTest) => void>>): void {
  for (const known of servers) {
    const { name, missing, start } = known.kind
    const reason = missing === undefined ? '' : ` (skipped: ${missing})`
    describe.skipIf(missing !== undefined)(`${name}${reason}`, () => {
      const opened: ObjectStore[] = []
      let server: S3Server | undefined
      beforeAll(async () => {
        server = await start()
      })
      afterAll(async () => {
        for (const store of opened) store.close()
        await server?.[Symbol.asyncDispose]()
      })
      const running = (): S3Server => {
        if (server === undefined) throw new Error('the server was started before the tests')
        return server
      }
      const config = async (): Promise<ObjectStoreConfig> => {
        const bucket = `states-${++buckets}`
        await makeBucket(running(), bucket)
        return configOf(running(), bucket)
      }
      const under: ServerUnderTest = {
        known,
        get server() {
          return running()
        },
        config,
        async open(options) {
          const store = await openObjectStore(await config(), options)
          opened.push(store)
          return store
        },
      }
      for (const [title, suite] of Object.entries(suites)) describe(title, () => suite(under))
    })
  }
}

function configOf({ endpoint, region, accessKeyId, secretAccessKey }: S3Server, bucket: string): ObjectStoreConfig {
  return { bucket, prefix: 'of/wrenn/', endpoint, region, accessKeyId, secretAccessKey, forcePathStyle: true }
}
