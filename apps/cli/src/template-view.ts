import type { TemplateInfo } from '@wrenn/sdk'
import { table } from './output.js'
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

/** A table of templates. */
export function showTemplates(templates: readonly TemplateInfo[], now: Date): string {
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
