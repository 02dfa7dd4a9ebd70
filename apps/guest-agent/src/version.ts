/** Answered by /init and /health, so that the host knows which contract the guest speaks. */
export const agentVersion = '0.1.0'
