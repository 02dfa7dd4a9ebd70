# The suites that look at the machine itself. Ten times slower here: their time is not what is tested.
# The Node.js for guests is there already where the demo ran.
[ -d apps/guest-agent/runtime/node_modules ] || npm ci --no-audit --no-fund --ignore-scripts --prefix apps/guest-agent/runtime
# Bursts that must be answered within the 5 s of resolvers are more than an emulated CPU can do.
export WRENN_TEST_SLOW=1
slowly='--project unit --test-timeout=300000 --hook-timeout=300000'
npx vitest run $slowly apps/host-agent/src/host apps/cli/src/up packages/base packages/vmm packages/postgres
# The guest agent's run in the process that they test, so by the Node.js that it has in guests.
guest_node=$(node -e "import('./scripts/prepare.mjs').then(({ guestNode }) => console.log(guestNode()))")
"$guest_node" --version
"$guest_node" node_modules/vitest/vitest.mjs run $slowly apps/guest-agent/src/http apps/guest-agent/src/rpc
