/** Version of the host agent, shown to the control plane and in `wrenn doctor`. */
export const version = '0.1.0'
