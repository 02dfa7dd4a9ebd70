/** What who writes scripts for the process starter must know of it; numbers of bytes, addresses and descriptors. */
export const starterLayout = {
  /** Where a script lies while it runs. */
  scriptAddress: 0x10001000,
  /** More than the kernel passes to a program (6 MiB, execve(2)), with room for the rest. */
  maxScriptBytes: 0x800000,
  headerBytes: 64,
  callBytes: 80,
  /** Descriptors that the starter is given: scripts come in, ends of processes and answers go out. */
  scriptFd: 0,
  endFd: 1,
  answerFd: 4,
  endBytes: 16,
} as const
