import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'

/** A real server of objects that tests have for themselves. */
export interface S3Server extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly endpoint: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** One kind of it, and whether this machine has the programs. */
export interface S3ServerKind {
  readonly name: string
  /** Why it cannot be started here; `undefined` when it can. */
  readonly missing: string | undefined
  readonly start: () => Promise<S3Server>
}

/** Makes a bucket, which no server has at first. */
export async function makeBucket({ endpoint, region, ...credentials }: S3Server, bucket: string): Promise<void> {
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
  const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true })
  try {
    await client.send(new CreateBucketCommand({ Bucket: bucket }))
  } finally {
    client.destroy()
  }
}
