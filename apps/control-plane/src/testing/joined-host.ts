import { waitFor } from '@wrenn/base'
import { createCertificateRequest, createHostAuthority, issueToControlPlane } from '@wrenn/certificates'
import type { Host, HostCredentials, NewHost } from '@wrenn/protocol'
import type { FakeHost } from '@wrenn/testkit'
import { json, type Platform } from './harness.js'

/** Joins with a token. */
export async function registerHost(
  platform: Pick<Platform, 'call'>,
  token: string,
  csr: string,
  address = '127.0.0.1:1',
): Promise<Response> {
  const machine = { arch: 'x64', cpu_cores: 2, memory_mb: 4096, disk_gb: 100 }
  return await platform.call('POST', '/v1/hosts/register', { token, csr, address, ...machine })
}

/** What a machine that has joined was given, and where it listens. */
export interface JoinedHost extends HostCredentials {
  readonly door: Awaited<ReturnType<FakeHost['listenRemotely']>>
  readonly key: string
  readonly csr: string
}

/** A machine with a host agent on the network, that has joined. */
export async function joinAs(
  platform: Pick<Platform, 'call'>,
  host: FakeHost,
  { host: { id }, registration_token: token }: NewHost,
): Promise<JoinedHost> {
  const { key, request: csr } = await createCertificateRequest()
  const stranger = await createHostAuthority()
  const unknown = await issueToControlPlane(stranger, 60_000)
  // It listens before it has joined, because its address is part of that.
  const door = await host.listenRemotely({ ...unknown, ca: stranger.cert })
  const answer = await json<HostCredentials>(await registerHost(platform, token, csr, door.address), 201)
  door.renew({ key, cert: answer.cert_pem, ca: answer.ca_cert_pem })
  host.hostId = id
  return { ...answer, door, key, csr }
}

/** A joined machine, with its host agent and its id. */
export type JoinedMachine = JoinedHost & { readonly fake: FakeHost; readonly id: string }

/** Lets a machine join as one that nobody knew. */
export async function joinAnew(platform: Pick<Platform, 'call'>, fake: FakeHost): Promise<JoinedMachine> {
  const made = await json<NewHost>(await platform.call('POST', '/v1/hosts', {}), 201)
  return { ...(await joinAs(platform, fake, made)), fake, id: made.host.id }
}

/** Until the platform hears from all that have joined. */
export async function untilOnline(platform: Pick<Platform, 'call'>): Promise<void> {
  const areOnline = async (): Promise<true | undefined> =>
    (await json<Host[]>(await platform.call('GET', '/v1/hosts'), 200)).every(({ status }) => status === 'online') ||
    undefined
  await waitFor(areOnline, { timeoutMs: 60_000, what: 'all hosts to be online' })
}
