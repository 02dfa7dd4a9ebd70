import { defineConfig } from 'vitest/config'

const shared = {
  resolve: { conditions: ['wrenn-source'] },
  ssr: { resolve: { conditions: ['wrenn-source'] } },
} as const

export default defineConfig({
  ...shared,
  test: {
    retry: 0,
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          include: ['{apps,packages}/*/src/**/*.test.ts'],
          testTimeout: 30_000,
          // Conditions are waited for as long as a test may take: a busy machine is no failure.
          expect: { poll: { timeout: 25_000 } },
        },
      },
      {
        ...shared,
        test: {
          name: 'conformance',
          include: ['{apps,packages}/*/conformance/**/*.test.ts'],
          testTimeout: 240_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
      {
        ...shared,
        test: {
          name: 'e2e',
          include: ['tests/e2e/**/*.test.ts'],
          globalSetup: ['tests/e2e/setup.ts'],
          testTimeout: 240_000,
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
      {
        ...shared,
        test: {
          name: 'chaos',
          include: ['tests/chaos/**/*.test.ts'],
          globalSetup: ['tests/chaos/setup.ts'],
          testTimeout: 480_000,
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
