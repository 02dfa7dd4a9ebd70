import type { TemplateInfo } from '@wrenn/sdk'
import { connect } from './connection.js'
import type { Context } from './context.js'
import { facts, table } from './output.js'
import { showOwnBytes, showSpan } from './units.js'

/** A template as `--json` has it. */
export function templateJson(template: TemplateInfo): object {
  return {
    name: template.name,
    type: template.type,
    platform: template.platform,
    snapshot_id: template.snapshotId,
    durable: template.durable,
    aliases: template.aliases,
    vcpus: template.vcpus,
    memory_mb: template.memoryMib,
    disk_size_mb: template.diskSizeMib,
    size_bytes: template.sizeBytes,
    created_at: template.createdAt,
  }
}

/** Prints the templates of the team, or all that there are. */
export async function listTemplates({ config, output }: Context, { all }: { readonly all?: boolean }): Promise<void> {
  const found = await (await connect(config)).templates.list(all ? {} : { type: 'snapshot' })
  output.result(found.map(templateJson), () => showTemplates(found, new Date()))
}

/** What a person is told of one template. */
export function showTemplate(template: TemplateInfo): string {
  return facts({
    name: template.name,
    type: template.type,
    aliases: template.aliases.join(', '),
    shape: `${template.vcpus} × ${template.memoryMib} MiB`,
    size: showOwnBytes(template.sizeBytes),
    created: template.createdAt.toISOString(),
  })
}

function showTemplates(templates: readonly TemplateInfo[], now: Date): string {
  const rows = templates.map((template) => [
    template.name,
    template.type,
    `${template.vcpus} × ${template.memoryMib} MiB`,
    showOwnBytes(template.sizeBytes),
    template.durable === undefined ? '' : template.durable ? 'durable' : 'not yet durable',
    showSpan(now.getTime() - template.createdAt.getTime()),
  ])
  return table(['NAME', 'TYPE', 'SHAPE', 'SIZE', 'SAVED', 'AGE'], rows)
}
