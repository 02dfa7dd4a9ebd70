import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { type Output, table } from '../output.js'
import { showBytes } from '../units.js'
import { layoutOf } from '../up/layout.js'
import { requireRoot } from '../up/requirements.js'
import { askHostAgent } from '../up/service-command.js'

const imageSchema = z.looseObject({
  name: z.string(),
  aliases: z.array(z.string()),
  sizeBytes: z.number(),
  digest: z.string(),
  createdAtMs: z.number(),
  packages: z.record(z.string(), z.string()),
})
type Image = z.infer<typeof imageSchema>

const kernelSchema = z.looseObject({ kernelVersion: z.string(), isPreferred: z.boolean(), reason: z.string() })
type Kernel = z.infer<typeof kernelSchema>

const nodeSchema = z.looseObject({ version: z.string(), isHosts: z.boolean(), reason: z.string() })
type GuestNode = z.infer<typeof nodeSchema>

const listSchema = z.looseObject({
  images: z.array(imageSchema),
  kernel: kernelSchema.optional(),
  node: nodeSchema.optional(),
})
const builtSchema = z.looseObject({ image: imageSchema })
const removedSchema = z.looseObject({ removed: z.string(), existed: z.boolean() })

const SHORT_DIGEST = 12

/** `wrenn image build|ls|rm`: the host agent's own program does it, whether or not a platform runs. Needs root. */
export function addImage(program: Command): void {
  const image = program.command('image').description('base images of this machine')
  addBuild(image)
  withDir(withJson(image.command('ls').description('list images'))).action(async (options: CommonOptions) => {
    const { images, kernel, node } = await ask(['ls'], listSchema, options)
    const { output } = contextOf(options)
    const shared = { ...(kernel && { kernel: kernelToJson(kernel) }), ...(node && { node: nodeToJson(node) }) }
    const notes = [...(kernel ? [showKernel(kernel, output)] : []), ...(node ? [showNode(node, output)] : [])]
    output.result(
      images.map((image) => ({ ...toJson(image), ...shared })),
      () => [showImages(images), ...(notes.length > 0 ? ['', ...notes] : [])].join('\n'),
    )
  })
  withDir(withJson(image.command('rm <name>').description('remove an image that no capsule uses'))).action(
    async (name: string, options: CommonOptions) => {
      const { removed, existed } = await ask(['rm', name], removedSchema, options)
      contextOf(options).output.result({ removed, existed }, () =>
        existed ? `Removed ${removed}.` : `There was no image ${removed}.`,
      )
    },
  )
}

function addBuild(image: Command): void {
  const build = image
    .command('build <name>')
    .description('build an image from images/<name>')
    .option('--rebuild', 'also when it is there already, to take up new package versions')
  withDir(withJson(build)).action(async (name: string, options: CommonOptions & { rebuild?: boolean }) => {
    const args = ['build', name, ...(options.rebuild ? ['--rebuild'] : [])]
    const built = await ask(args, builtSchema, options)
    contextOf(options).output.result(toJson(built.image), () => showImages([built.image]))
  })
}

async function ask<Schema extends z.ZodType>(
  args: readonly string[],
  schema: Schema,
  options: CommonOptions,
): Promise<z.output<Schema>> {
  const { config, output } = contextOf(options)
  requireRoot()
  const progress = startProgress(output, args)
  try {
    return await askHostAgent({
      args: ['image', ...args],
      config,
      dir: layoutOf(config.dir).dir,
      schema,
      onProgress: ({ detail, fraction }) =>
        progress.update(fraction === undefined ? detail : `${detail} (${Math.round(fraction * 100)} %)`),
    })
  } finally {
    progress.done()
  }
}

/** Only a build takes long enough to tell of its steps. */
function startProgress(output: Output, args: readonly string[]) {
  return args[0] === 'build' ? output.progress(`building ${args[1]}`) : output.spinner('looking')
}

function toJson(image: Image): object {
  return {
    name: image.name,
    aliases: image.aliases,
    size_bytes: image.sizeBytes,
    sha256: image.digest,
    created_at: new Date(image.createdAtMs).toISOString(),
    packages: image.packages,
  }
}

function kernelToJson({ kernelVersion, isPreferred, reason }: Kernel): object {
  return { version: kernelVersion, preferred: isPreferred, reason }
}

/** All images boot the same one. */
function showKernel({ kernelVersion, isPreferred, reason }: Kernel, style: Pick<Output, 'mark'>): string {
  return `${style.mark(isPreferred ? 'ok' : 'warn')} Guest kernel ${kernelVersion}. ${reason}`
}

function nodeToJson({ version, isHosts, reason }: GuestNode): object {
  return { version, of_host: isHosts, reason }
}

function showNode({ version, reason }: GuestNode, style: Pick<Output, 'mark'>): string {
  return `${style.mark('ok')} Node.js of guests ${version}. ${reason}`
}

function showImages(images: readonly Image[]): string {
  const rows = images.map((image) => [
    image.name,
    image.aliases.join(', '),
    showBytes(image.sizeBytes),
    String(Object.keys(image.packages).length),
    new Date(image.createdAtMs).toISOString().slice(0, 16).replace('T', ' '),
    image.digest.slice(0, SHORT_DIGEST),
  ])
  return table(['NAME', 'ALIASES', 'SIZE', 'PACKAGES', 'BUILT (UTC)', 'SHA256'], rows)
}
