import { describe, expect, it } from 'vitest'
import { useCapsule } from '../harness/api.js'

const capsule = useCapsule()

const OWN_GROUP = 'mkdir -p /sys/fs/cgroup/own; echo $$ >/sys/fs/cgroup/own/cgroup.procs'
const ROOT_GROUP = 'echo $$ >/sys/fs/cgroup/cgroup.procs'
/** Says so when a `sleep` runs, and stays. */
const STAY = 'until pgrep -x sleep >/dev/null; do :; done; echo out; exec tail -f /dev/null'

/** Shell lines that start a `sleep` somewhere outside of what the shell itself was started in. */
const waysOut: Readonly<Record<string, string>> = {
  'a cgroup of its own, shell and all': `${OWN_GROUP}; setsid sleep 4242 & ${STAY}`,
  'the root cgroup, without a parent and an environment': `${ROOT_GROUP}; (env -i /usr/bin/setsid /bin/sleep 4242 &); ${STAY}`,
  'namespaces of its own': `${OWN_GROUP}; (setsid unshare --fork --pid --mount --cgroup --net sleep 4242 &); ${STAY}`,
  'a user namespace': `(setsid unshare --user --map-root-user --fork --pid sleep 4242 &); ${STAY}`,
  'another user by sudo': `${ROOT_GROUP}; (sudo -n -u user nohup sleep 4242 >/dev/null 2>&1 &); ${STAY}`,
  'a cgroup where it multiplies': `${OWN_GROUP}; echo out; while :; do setsid sleep 4242 & done`,
}

describe('a command that is killed by its timeout', () => {
  it.each(Object.entries(waysOut))('takes along what went into %s', async (_, line) => {
    const killed = await capsule().sh(line, { timeout_sec: 8 })
    expect(killed).toMatchObject({ exit_code: 124, timed_out: true, stdout: 'out\n' })
    expect(await capsule().text('pgrep -a -x sleep || echo none')).toBe('none')
  })

  it('spares what an earlier command, which ended by itself, left behind', async () => {
    await capsule().text('setsid sleep 5151 >/dev/null 2>&1 &')
    expect((await capsule().sh('sleep 4242', { timeout_sec: 1 })).timed_out).toBe(true)
    expect(await capsule().text('pgrep -a -x sleep | cut -d" " -f2-')).toBe('sleep 5151')
  })
})
