# The suites that look at the machine itself. Ten times slower here: their time is not what is tested.
npx vitest run --project unit --test-timeout=300000 --hook-timeout=300000 \
  apps/host-agent/src/host apps/cli/src/up packages/base packages/vmm packages/postgres apps/guest-agent/src/http apps/guest-agent/src/rpc
