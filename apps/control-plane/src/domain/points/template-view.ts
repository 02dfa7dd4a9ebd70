import type { Template } from '@wrenn/protocol'
import type { Template as HostTemplate } from '@wrenn/protocol/host'
import type { SnapshotRow } from '../../store/schema.js'

/** A built-in template as the API shows it. */
export function platformTemplate(template: HostTemplate): Template {
  return {
    name: template.name,
    type: 'base',
    platform: true,
    aliases: template.aliases,
    ...(template.description === '' ? {} : { description: template.description }),
    vcpus: template.defaultVcpus,
    memory_mb: template.defaultMemoryMib,
    size_bytes: Number(template.sizeBytes),
    created_at: new Date(Number(template.createdAtMs)).toISOString(),
  }
}

/** A team's snapshot as the API shows it. */
export function snapshotTemplate(row: SnapshotRow): Template {
  return {
    name: row.name,
    type: 'snapshot',
    platform: false,
    aliases: [],
    snapshot_id: row.id,
    vcpus: row.vcpus,
    memory_mb: row.memory_mib,
    disk_size_mb: row.disk_size_mib,
    size_bytes: row.size_bytes,
    durable: row.durable_at !== null,
    metadata: { template: row.template, ...row.versions },
    created_at: row.created_at.toISOString(),
  }
}
