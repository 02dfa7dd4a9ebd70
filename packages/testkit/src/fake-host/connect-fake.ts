import { connect } from 'node:net'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { HostService } from '@wrenn/protocol/host'
import type { ConnectedHost } from '../conformance/host-adapter.js'
import { FakeHost } from './fake-host.js'

/** A fake host with a client of its own; disposing ends both. */
export async function startConnectedFake(): Promise<ConnectedHost & { readonly host: FakeHost }> {
  const host = await FakeHost.start()
  const path = host.address.replace('unix:', '')
  const sessionManager = new Http2SessionManager('http://fake', {}, { createConnection: () => connect(path) })
  const transport = createConnectTransport({ httpVersion: '2', baseUrl: 'http://fake', sessionManager })
  return {
    host,
    client: createClient(HostService, transport),
    namesOf: (id) => host.namesOf(id),
    endGuest: async (id) => host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' }),
    [Symbol.asyncDispose]: async () => {
      sessionManager.abort()
      await host[Symbol.asyncDispose]()
    },
  }
}
