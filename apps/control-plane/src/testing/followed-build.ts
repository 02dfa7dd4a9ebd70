import type { TemplateBuild, TemplateBuildLog } from '@wrenn/protocol'
import { json, type Platform } from './harness.js'

/** All that a build says, until it has ended. */
export async function followBuild(
  platform: Pick<Platform, 'call'>,
  { id }: Pick<TemplateBuild, 'id'>,
): Promise<{ readonly build: TemplateBuild; readonly messages: readonly string[] }> {
  const messages: string[] = []
  for (let from = 0; ; ) {
    const path = `/v1/templates/builds/${id}/log?from=${from}&wait_sec=5`
    const { build, lines, next } = await json<TemplateBuildLog>(await platform.call('GET', path), 200)
    messages.push(...lines.map(({ message }) => message))
    from = next
    if (lines.length === 0 && build.ended_at !== undefined) return { build, messages }
  }
}
