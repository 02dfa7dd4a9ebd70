import { expect, it } from 'vitest'
import { isAddress } from './passkeys.js'

it('tells addresses, for which browsers make no passkeys, from names', () => {
  expect(['127.0.0.1', '10.0.0.7', '[::1]'].map(isAddress)).toEqual([true, true, true])
  expect(['localhost', 'wrenn.example', '1.example', '10.0.0.7.example'].map(isAddress)).toEqual([
    false,
    false,
    false,
    false,
  ])
})
