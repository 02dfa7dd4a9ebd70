export { type AnswerWitness, type DnsForwarder, type DnsForwarderOptions, startDnsForwarder } from './forwarder.js'
export { parseResolvConf } from './upstreams.js'
