import { WrennError } from '@wrenn/sdk'
import { expect, it } from 'vitest'
import { sendingFailure } from './changed.js'

it('a file that changed while it was sent is told from a connection that broke', async () => {
  const broken = new WrennError('No server answers.', { code: 'connection_failed' })
  const torn = new File(['x'], 'app.tar')
  torn.slice = () => {
    throw new DOMException('gone', 'NotReadableError')
  }
  expect(await sendingFailure(new File(['x'], 'app.tar'), broken)).toBe(broken)
  expect(await sendingFailure(torn, broken)).toMatchObject({
    code: 'file_not_found',
    message: 'app.tar cannot be read any more: it changed or is gone.',
  })
  const large = new WrennError('It is too large.', { code: 'too_large' })
  expect(await sendingFailure(torn, large)).toBe(large)
})
