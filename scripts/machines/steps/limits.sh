# What the kernel does for capsules, seen by its effects: limits of control groups and who is killed at one, networks, the pool.
# Bursts that must be answered within the 5 s of resolvers are more than an emulated CPU can do.
export WRENN_TEST_SLOW=1
npx vitest run --project conformance --test-timeout=300000 --hook-timeout=300000 \
  apps/host-agent/conformance/cgroups.test.ts apps/host-agent/conformance/network.test.ts apps/host-agent/conformance/pool.test.ts
