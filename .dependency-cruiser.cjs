/** The arrows of docs/architecture.md, checked. Anything not allowed here is a breach. */
const within = (path) => `^${path}/`
const only = (from, allowed, extra = '') => ({
  name: `${from.replaceAll('/', '-')}-imports`,
  comment: `${from} may import ${allowed.length === 0 ? 'nothing of ours' : allowed.join(', ')}`,
  severity: 'error',
  from: { path: within(from), pathNot: '\\.test\\.ts$|/conformance/|/src/testing/' },
  to: {
    path: '^(apps|packages)/',
    pathNot: [within(from), ...allowed.map(within), ...(extra ? [extra] : [])].join('|'),
  },
})
const order = (app, later, earlier) => ({
  name: `${app.replaceAll('/', '-')}-${later.replaceAll('|', '-')}-never-back`,
  comment: `folders follow a request: ${later} must not import ${earlier}`,
  severity: 'error',
  from: { path: `^${app}/src/(${later})/` },
  to: { path: `^${app}/src/(${earlier})/` },
})

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('packages/base', []),
    only('packages/protocol', []),
    only('packages/vmm', ['packages/base']),
    only('packages/postgres', ['packages/base']),
    only('packages/sdk', ['packages/protocol']),
    only('packages/testkit', ['packages/base', 'packages/protocol', 'packages/vmm', 'packages/postgres']),
    only('apps/control-plane', ['packages/protocol', 'packages/base']),
    only('apps/host-agent', ['packages/protocol', 'packages/base', 'packages/vmm']),
    only('apps/guest-agent', ['packages/protocol', 'packages/base']),
    only('apps/cli', ['packages/sdk', 'packages/base', 'packages/postgres']),
    {
      name: 'testkit-is-for-tests',
      severity: 'error',
      from: { path: '^(apps|packages)/', pathNot: '\\.test\\.ts$|/conformance/|/src/testing/|^packages/testkit/' },
      to: { path: '^packages/testkit/' },
    },
    order('apps/control-plane', 'domain|store|host', 'http'),
    order('apps/control-plane', 'store|host', 'domain'),
    order('apps/host-agent', 'capsule|host', 'rpc'),
    order('apps/host-agent', 'host', 'capsule'),
    {
      name: 'only-the-machine-layer-spawns',
      comment:
        'processes are spawned by vmm, host-agent/src/host, the guest agent, the embedded database and the supervisor',
      severity: 'error',
      from: {
        path: '^(apps|packages)/',
        pathNot:
          '\\.test\\.ts$|/conformance/|^packages/(vmm|postgres|testkit)/|^apps/host-agent/src/host/|^apps/guest-agent/|^apps/cli/src/(up|apps)',
      },
      to: { path: '^(node:)?child_process$', dependencyTypesNot: ['type-only'] },
    },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(build|dist|node_modules)/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['wrenn-source', 'import', 'node', 'default'],
      extensions: ['.ts', '.js', '.mjs', '.cjs', '.json', '.node'],
    },
  },
}
