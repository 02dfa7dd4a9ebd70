import { describeHostService } from '../conformance/host-service.js'
import { startConnectedFake } from './connect-fake.js'

describeHostService({
  name: 'fake',
  guest: { instead: "capsules of the fake host share this machine's kernel, clock and names" },
  connect: startConnectedFake,
})
