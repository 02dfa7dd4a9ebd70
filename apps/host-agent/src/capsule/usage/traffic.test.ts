import { capsuleIds } from '@wrenn/base'
import { expect, it } from 'vitest'
import type { CapsuleRecord } from '../types.js'
import { Traffic } from './traffic.js'

const [one, other] = [capsuleIds.create(), capsuleIds.create()]
const vm = (pid: number) => ({ pid, pidStartTicks: '1' })
/** Only what is looked at. */
const record = (fields: object): CapsuleRecord => fields as unknown as CapsuleRecord

it('tells of the guests of each capsule, and of those that have ended until they were noted', async () => {
  const noted: string[] = []
  const ended = [
    { owner: one, guestId: 'boot-1', rxBytes: 1, txBytes: 2 },
    { owner: `${one}-3`, guestId: 'boot-2', rxBytes: 3, txBytes: 4 },
    { owner: 'hot-0123456789abcdef', guestId: 'boot-3', rxBytes: 5, txBytes: 6 },
  ]
  const records = [
    record({ capsuleId: one, resources: { slotIndex: 7, vm: vm(70) }, other: { slotIndex: 8, vm: vm(80) } }),
    // Asleep, about to start, with a guest that has just ended, and with one whose slot is gone.
    record({ capsuleId: other, resources: undefined }),
    record({ capsuleId: other, resources: { slotIndex: 1, vm: undefined } }),
    record({ capsuleId: other, resources: { slotIndex: 2, vm: vm(20) } }),
    record({ capsuleId: other, resources: { slotIndex: 9, vm: vm(90) } }),
  ]
  const traffic = new Traffic({
    records: () => records,
    readNet: ({ pid }) => (pid === 20 ? undefined : { rxBytes: pid, txBytes: pid + 1 }),
    slots: {
      guestId: (index) => (index === 9 ? undefined : `boot-${index}0`),
      ended: () => ended.filter(({ guestId }) => !noted.includes(guestId)),
      noted: async (guestIds) => void noted.push(...guestIds),
    },
  })
  const running = [
    { capsuleId: one, guestId: 'boot-70', rxBytes: 70, txBytes: 71, ended: false },
    { capsuleId: one, guestId: 'boot-80', rxBytes: 80, txBytes: 81, ended: false },
  ]
  expect(await traffic.collect([])).toEqual([
    { capsuleId: one, guestId: 'boot-1', rxBytes: 1, txBytes: 2, ended: true },
    { capsuleId: one, guestId: 'boot-2', rxBytes: 3, txBytes: 4, ended: true },
    ...running,
  ])
  // That of no capsule is forgotten at once.
  expect(noted).toEqual(['boot-3'])
  expect(await traffic.collect(['boot-1', 'boot-2'])).toEqual(running)
})
