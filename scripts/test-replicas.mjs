// Runs the tests of accounts, teams, keys, plans and the audit trail over two control planes that have each client's requests in turn, on
// Debian's PostgreSQL and on the embedded one.
import { spawnSync } from 'node:child_process'

const suites = [
  ...['people', 'people-mail', 'sign-in', 'second-factors', 'passkeys', 'oauth', 'oauth-accounts', 'device-logins'],
  ...['account-deletion', 'set-up', 'all-teams', 'roles', 'permissions', 'foreign-ids', 'keys', 'quotas', 'plans'],
  ...['audit', 'sockets', 'egress', 'checkpoints', 'lifecycle'],
].map((name) => `apps/control-plane/src/${name}.test.ts`)

let failed = false
for (const postgres of ['debian', 'embedded']) {
  console.log(`› Two control planes on the ${postgres} PostgreSQL`)
  const env = { ...process.env, WRENN_TEST_REPLICAS: '2', WRENN_TEST_POSTGRES: postgres }
  const { status } = spawnSync('npx', ['vitest', 'run', '--project', 'unit', ...suites], { stdio: 'inherit', env })
  failed ||= status !== 0
}
process.exit(failed ? 1 : 0)
