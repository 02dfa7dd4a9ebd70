import { errorText, type Logger } from '@wrenn/base'
import type { Machine } from '../machine.js'
import type { Shape, ShapeStore } from './shapes.js'

export interface RenewalDeps {
  readonly machine: Pick<Machine, 'engine' | 'images'>
  readonly shapes: Pick<ShapeStore, 'outdated'>
  /** Makes a shape's snapshot anew; never rejects. */
  readonly renew: (shape: Shape) => Promise<void>
  readonly logger: Logger
}

/**
 * Notices that the engine's program was replaced, at the start or while the host agent runs, and has every shape that it was
 * used with made anew: one after the other, so that creates keep the CPU, which meanwhile use what the earlier one left.
 */
export class Renewal {
  readonly #deps: RenewalDeps
  #version: string | undefined
  #work = Promise.resolve()

  constructor(deps: RenewalDeps) {
    this.#deps = deps
  }

  /** Begins with what `find` finds; cheap when nothing has changed. @returns the shapes that are being made anew for it */
  async look(): Promise<readonly Shape[]> {
    const outdated = await this.find()
    this.begin(outdated)
    return outdated
  }

  /** In their order, after those that were begun before. */
  begin(shapes: readonly Shape[]): void {
    for (const shape of shapes) this.#work = this.#work.then(() => this.#deps.renew(shape))
  }

  /** Shapes that the program as it is now has made no snapshots of; none when it is the one of the last time. */
  async find(): Promise<readonly Shape[]> {
    const { machine, shapes, logger } = this.#deps
    try {
      const version = await machine.engine.version()
      if (version === this.#version) return []
      const outdated = await shapes.outdated(await machine.images.list())
      if (outdated.length > 0)
        logger.info({ before: this.#version, version, shapes: outdated.length }, 'engine.changed')
      this.#version = version
      return outdated
    } catch (error) {
      // In the middle of an upgrade the program may be missing or not run; the next look sees it whole.
      logger.warn({ error: errorText(error) }, 'engine.not_asked')
      return []
    }
  }
}
