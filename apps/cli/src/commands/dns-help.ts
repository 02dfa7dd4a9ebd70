import { join } from 'node:path'
import type { Command } from 'commander'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { layoutOf } from '../up/layout.js'
import { domainsOf, type TlsArguments } from '../up/tls/options.js'

interface DnsHelpOptions extends CommonOptions, TlsArguments {
  readonly address?: string
}

/** `wrenn dns-help`: how the names of ports come to lead to this platform. Looks at nothing and changes nothing. */
export function addDnsHelp(program: Command): void {
  const command = program
    .command('dns-help')
    .description('say how names of ports come to lead to this platform')
    .option('--domain <name>', 'as given to `wrenn up` (default: WRENN_PROXY_DOMAIN or localhost)')
    .option('--address <ip>', 'where clients reach this machine (default: 127.0.0.1)')
  withDir(withJson(command)).action((options: DnsHelpOptions) => {
    const { config, output } = contextOf(options)
    const domains = domainsOf(options, config).map((name) => name.replace(/:\d+$/, ''))
    const dotted = domains.filter((name) => name.includes('.'))
    const domain = dotted[0] ?? 'localhost'
    const address = options.address ?? '127.0.0.1'
    const advice = { domain, address, records: recordsFor(domain, address) }
    output.result(advice, () => text(advice, join(layoutOf(config.dir).tlsDir, dotted.join('+'), 'ca.pem')))
  })
}

interface Advice {
  readonly domain: string
  readonly address: string
  /** Lines of a zone file. */
  readonly records: readonly string[]
}

function recordsFor(domain: string, address: string): readonly string[] {
  const type = address.includes(':') ? 'AAAA' : 'A'
  return [domain, `*.${domain}`].map((name) => `${name}. 300 IN ${type} ${address}`)
}

function text({ domain, address, records }: Advice, authorityFile: string): string {
  if (domain === 'localhost') return LOCALHOST
  return `Every name below ${domain} must lead to ${address}. One of these does it:

  A zone of your own     two records, the second for the names of ports:
${records.map((record) => `                           ${record}`).join('\n')}

  dnsmasq                for a machine or a network without such a zone:
                           address=/${domain}/${address}

  /etc/hosts             knows no *, so one line for each name that you use:
                           ${address} api.${domain} 8080-cl-….${domain}

  No names at all        programs that let you set headers reach any port at the plain address:
                           curl -H 'E2b-Sandbox-Id: cl-…' -H 'E2b-Sandbox-Port: 8080' http://${address}:8000/

See whether it works:      getent hosts 8080-cl-x.${domain}

Clients that come by HTTPS and the platform's own authority must trust ${authorityFile}:
  curl                   --cacert FILE
  Node.js                NODE_EXTRA_CA_CERTS=FILE
  Python                 SSL_CERT_FILE=FILE
  Debian, Ubuntu         cp FILE /usr/local/share/ca-certificates/wrenn.crt && update-ca-certificates
It can speak for ${domain} and the loopback addresses, and for nothing else.`
}

const LOCALHOST = `Ports have names below localhost: nothing is to be set up where a program knows that these are this machine.
  knows it               curl, Chromium, Firefox
  does not               what asks the C library: Node.js, Python, most others; on this machine only, too
For those: routing headers at the plain address, a line in /etc/hosts for each name, or a domain of your own:
  wrenn dns-help --domain sbx.test`
