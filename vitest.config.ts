import { defineConfig } from 'vitest/config'

const shared = {
  resolve: { conditions: ['wrenn-source'] },
  ssr: { resolve: { conditions: ['wrenn-source'] } },
} as const

/** Conditions are waited for nearly as long as a test may take: a busy machine is no failure. */
const patientWith = (testTimeout: number) => ({ testTimeout, expect: { poll: { timeout: testTimeout - 10_000 } } })

/** `npm test` tells each failure again in one line at its end: the message must say what was there instead. */
const chaiConfig = { truncateThreshold: 800 }

export default defineConfig({
  ...shared,
  test: {
    retry: 0,
    /** Of a platform with guests, on a busy machine. */
    teardownTimeout: 300_000,
    projects: [
      {
        ...shared,
        test: {
          chaiConfig,
          name: 'unit',
          include: ['{apps,packages}/*/src/**/*.test.ts'],
          ...patientWith(60_000),
          hookTimeout: 60_000,
        },
      },
      {
        ...shared,
        test: {
          chaiConfig,
          name: 'conformance',
          include: ['{apps,packages}/*/conformance/**/*.test.ts'],
          ...patientWith(240_000),
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
      {
        ...shared,
        test: {
          chaiConfig,
          name: 'e2e',
          include: ['tests/e2e/**/*.test.ts'],
          globalSetup: ['tests/e2e/setup.ts'],
          ...patientWith(240_000),
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
      {
        ...shared,
        test: {
          chaiConfig,
          name: 'chaos',
          include: ['tests/chaos/**/*.test.ts'],
          globalSetup: ['tests/chaos/setup.ts'],
          ...patientWith(480_000),
          hookTimeout: 900_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
