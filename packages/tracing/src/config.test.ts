import { describe, expect, it } from 'vitest'
import { readTracing } from './config.js'

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' }

describe('what the environment says about traces', () => {
  it.each([
    ['nothing', {}],
    ['an empty endpoint, which is one that is unset', { OTEL_EXPORTER_OTLP_ENDPOINT: ' ' }],
    ['none', { ...endpoint, OTEL_TRACES_EXPORTER: 'none' }],
    ['that the SDK is disabled', { ...endpoint, OTEL_SDK_DISABLED: 'True' }],
    ['only what the service is called', { OTEL_SERVICE_NAME: 'ours', OTEL_EXPORTER_OTLP_HEADERS: 'a=b' }],
  ])('is off with %s', (_, env) => {
    expect(readTracing(env)).toEqual({ is: 'off' })
  })

  it.each([
    ['an endpoint', endpoint, 'protobuf'],
    ['an endpoint for traces', { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://collector/v1/traces' }, 'protobuf'],
    ['the exporter, at the endpoint that is its default', { OTEL_TRACES_EXPORTER: 'otlp' }, 'protobuf'],
    ['JSON', { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' }, 'json'],
    [
      'a protocol of traces before one of all',
      { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/protobuf' },
      'protobuf',
    ],
  ])('is on with %s', (_, env, encoding) => {
    expect(readTracing(env)).toEqual({ is: 'on', encoding })
  })

  it.each([
    ['another exporter', { ...endpoint, OTEL_TRACES_EXPORTER: 'zipkin' }, 'zipkin'],
    ['gRPC', { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'grpc'],
    ['an endpoint that is no address', { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' }, 'http:// or https://'],
  ])('is refused with its reason for %s', (_, env, reason) => {
    expect(readTracing(env)).toEqual({ is: 'refused', reason: expect.stringContaining(reason) })
  })
})
