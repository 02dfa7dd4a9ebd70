export { chatRules } from './chat/chat-rules.js'
export { type ChatAnswer, type ChatRequest, type ChatRules, ChatServer } from './chat/chat-server.js'
export { describeEngine, type EngineAdapter } from './conformance/engine.js'
export type { HostServiceAdapter } from './conformance/host-adapter.js'
export { failure, type HostClient, TestCapsule } from './conformance/host-client.js'
export { describeHostService } from './conformance/host-service.js'
export { Witnesses } from './conformance/witnesses.js'
export { FakeGuest } from './fake-guest.js'
export type { FakeOperation, FaultPoint, Held } from './fake-host/fake-faults.js'
export { FakeHost } from './fake-host/fake-host.js'
export type { FakeActivity, FakePoint, FakeTraffic } from './fake-host/fake-state.js'
export { freePort } from './free-port.js'
export { type LagoFault, LagoServer } from './lago/lago-server.js'
export { type OciImage, tarOf, writeOciLayout } from './oci/oci-image.js'
export { registryLogin, TestRegistry } from './oci/test-registry.js'
export { type OidcPerson, type OidcServer, type OidcServerOptions, startOidcServer } from './oidc-server.js'
export { OtlpReceiver, type ReceivedSpan } from './otlp/otlp-receiver.js'
export { FaultyProxy, type S3Fault, type S3Request } from './s3/faulty-proxy.js'
export { rgwKind } from './s3/rgw.js'
export { makeBucket, type S3Server, type S3ServerKind } from './s3/s3-server.js'
export { swiftKind } from './s3/swift.js'
export {
  isReplicated,
  startTestPostgres,
  type TestPostgres,
  type TestPostgresKind,
  testPostgresKinds,
} from './test-postgres.js'
