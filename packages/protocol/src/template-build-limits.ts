/** How large what a build is made of may be. */
export const templateBuildLimits = {
  stages: 50,
  /** Of a stage. */
  steps: 500,
  /** Of a step. */
  args: 2_000,
  /** Characters of one argument, or of a start command. */
  lineLength: 256 * 1024,
  /** Of an entry point or a command. */
  words: 1_000,
  /** One of which is waited for. */
  ports: 50,
  /** That one build gets. */
  tags: 20,
  /** Of a step, by their paths; of more, a later build does not say which changed. */
  toldFiles: 2_000,
  /** Of a whole build; those of the steps beyond are not remembered. */
  rememberedFiles: 5_000,
  secrets: 50,
  secretLength: 64 * 1024,
  /** Of all secrets together: each is looked for in the log. */
  secretLines: 1_000,
  /** Folders of a step that are empty while it runs. */
  scratch: 50,
} as const
