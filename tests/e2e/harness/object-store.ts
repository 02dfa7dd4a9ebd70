import { makeBucket, rgwKind, type S3Server } from '@wrenn/testkit'

const BUCKET = 'capsules'

/** A server with a bucket, and the settings by which a platform uses it. */
export interface ObjectStoreOfTests {
  readonly server: S3Server
  readonly env: Readonly<Record<string, string>>
}

/** Ceph's gateway, where it is installed: see `rgwKind.missing`. */
export async function startObjectStore(): Promise<ObjectStoreOfTests> {
  const server = await rgwKind.start()
  await makeBucket(server, BUCKET)
  const { endpoint, region, accessKeyId, secretAccessKey } = server
  const env = {
    WRENN_OBJECT_STORE: `s3://${BUCKET}/wrenn`,
    WRENN_OBJECT_STORE_ENDPOINT: endpoint,
    WRENN_OBJECT_STORE_REGION: region,
    WRENN_OBJECT_STORE_ACCESS_KEY: accessKeyId,
    WRENN_OBJECT_STORE_SECRET_KEY: secretAccessKey,
  }
  return { server, env }
}
