import { describeFaults } from './faults.js'
import { describeObjectStore } from './object-store.js'
import { describeServers } from './servers.js'
import { describeStateStore } from './state-store.js'

// In one file, because a server takes longer to start than most of its tests.
describeServers({
  'the object store': describeObjectStore,
  'stored states': describeStateStore,
  'stored states through a network that fails': describeFaults,
})
