import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { listRemnants, markSwept, type Remnant } from '../../store/teams.js'
import { Rounds } from '../rounds.js'

const AT_ONCE = 50

interface TeamSweeperDeps {
  readonly db: Db
  readonly logger: Logger
  readonly lookEveryMs: number
  readonly endCapsule: (teamId: string, id: string) => Promise<void>
  readonly endSnapshot: (teamId: string, name: string) => Promise<void>
}

/** Ends what deleted teams have left, whoever deleted them and whatever died meanwhile. Several may do it at once. */
export class TeamSweeper extends Rounds {
  constructor(deps: TeamSweeperDeps) {
    const onFailure = (error: unknown): void =>
      deps.logger.warn({ error: errorText(error) }, 'team_sweeper.round_failed')
    super(() => sweep(deps), deps.lookEveryMs, onFailure)
  }
}

async function sweep(deps: TeamSweeperDeps): Promise<void> {
  const remnants = await listRemnants(deps.db, AT_ONCE)
  await Promise.all(remnants.map((remnant) => end(deps, remnant)))
  if (remnants.length === 0) await markSwept(deps.db)
}

async function end(
  { endCapsule, endSnapshot, logger }: TeamSweeperDeps,
  { teamId, kind, name }: Remnant,
): Promise<void> {
  try {
    await (kind === 'capsule' ? endCapsule(teamId, name) : endSnapshot(teamId, name))
  } catch (error) {
    // What is on its way to somewhere else is ended when it is there.
    const isBusy = AppError.is(error, 'invalid_state', 'in_use', 'conflict', 'template_not_found', 'capsule_not_found')
    if (!isBusy) logger.warn({ teamId, kind, name, error: errorText(error) }, 'team_sweeper.not_ended')
  }
}
