import { type StartBuildOptions, WrennError } from '@wrenn/sdk'
import { type FieldErrors, FieldsRefused, fieldErrorsOf } from '../field-errors.js'

const fields = ['name', 'vcpus', 'memory_mb'] as const

/** What somebody wants a template to be, whatever it is made of. */
export class TemplateWish {
  name = $state('')
  /** As typed. */
  tags = $state('')
  vcpus = $state<number | null>()
  memoryMib = $state<number | null>()
  errors = $state.raw<FieldErrors<(typeof fields)[number]>>({})
  #suggested = ''

  /** Calls it so unless somebody has typed a name. */
  suggest(name: string): void {
    if (this.name === '' || this.name === this.#suggested) this.name = name
    this.#suggested = name
  }

  get options(): StartBuildOptions {
    const { vcpus, memoryMib } = this
    return {
      tags: this.tags.split(/[\s,]+/).filter(Boolean),
      ...(typeof vcpus === 'number' && { vcpus }),
      ...(typeof memoryMib === 'number' && { memoryMib }),
    }
  }

  /** Has its fields say what of a failure is theirs. @returns what a form throws then */
  refuse(error: unknown): unknown {
    const isTaken = error instanceof WrennError && error.code === 'template_name_taken'
    this.errors = isTaken ? { name: error.message } : fieldErrorsOf(error, fields)
    return Object.keys(this.errors).length > 0 ? new FieldsRefused() : error
  }
}
