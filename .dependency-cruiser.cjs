/** The arrows of docs/architecture.md, checked. Anything not allowed here is a breach. */
const TESTS = '\\.test\\.ts$|/conformance/|/src/testing/'
const within = (path) => `^${path}/`
const only = (from, allowed, extra = '') => ({
  name: `${from.replaceAll('/', '-')}-imports`,
  comment: `${from} may import ${allowed.length === 0 ? 'nothing of ours' : allowed.join(', ')}`,
  severity: 'error',
  from: { path: within(from), pathNot: TESTS },
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
/**
 * A folder of rooms: one room per concern, each with an `index.ts` that says what others may use. The files beside the rooms are
 * the ground that all rooms stand on; they hold everything together and may look into a room.
 */
const rooms = (folder) => [
  {
    name: `${folder.replaceAll('/', '-')}-rooms-by-their-index`,
    comment: `a room of ${folder} uses another one by its index.ts`,
    severity: 'error',
    from: { path: `^${folder}/([^/]+)/`, pathNot: TESTS },
    to: { path: `^${folder}/[^/]+/`, pathNot: `^${folder}/($1/|[^/]+/index\\.ts$)` },
  },
  {
    name: `${folder.replaceAll('/', '-')}-by-its-indexes`,
    comment: `who is outside ${folder} uses its rooms by their index.ts`,
    severity: 'error',
    from: { path: '^(apps|packages)/', pathNot: `^${folder}/|${TESTS}` },
    to: { path: `^${folder}/[^/]+/`, pathNot: `^${folder}/[^/]+/index\\.ts$` },
  },
]

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('packages/base', []),
    only('packages/protocol', []),
    only('packages/vmm', ['packages/base']),
    only('packages/postgres', ['packages/base']),
    only('packages/certificates', []),
    only('packages/object-store', ['packages/base']),
    only('packages/tracing', ['packages/base', 'packages/protocol']),
    only('packages/sdk', ['packages/protocol']),
    only('packages/testkit', ['packages/base', 'packages/protocol', 'packages/vmm', 'packages/postgres']),
    only('apps/control-plane', [
      'packages/protocol',
      'packages/base',
      'packages/certificates',
      'packages/object-store',
      'packages/tracing',
    ]),
    only('apps/host-agent', [
      'packages/protocol',
      'packages/base',
      'packages/certificates',
      'packages/object-store',
      'packages/vmm',
      'packages/tracing',
    ]),
    only('apps/guest-agent', ['packages/protocol', 'packages/base']),
    only('apps/cli', ['packages/sdk', 'packages/base', 'packages/postgres', 'packages/certificates']),
    only('apps/dashboard', ['packages/sdk']),
    {
      name: 'testkit-is-for-tests',
      severity: 'error',
      from: { path: '^(apps|packages)/', pathNot: '\\.test\\.ts$|/conformance/|/src/testing/|^packages/testkit/' },
      to: { path: '^packages/testkit/' },
    },
    order('apps/control-plane', 'domain|store|host', 'http|proxy|e2b'),
    order('apps/control-plane', 'store|host', 'domain'),
    order('apps/host-agent', 'capsule|host', 'rpc'),
    order('apps/host-agent', 'host', 'capsule'),
    ...rooms('apps/control-plane/src/domain'),
    ...rooms('apps/host-agent/src/capsule'),
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
    {
      name: 'not-to-unresolvable',
      comment: "SvelteKit's own modules are there in its build alone",
      severity: 'error',
      from: {},
      to: { couldNotResolve: true, pathNot: '^\\$app/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(build|dist|node_modules|[.]svelte-kit)/' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['wrenn-source', 'import', 'node', 'default'],
      extensions: ['.ts', '.js', '.mjs', '.cjs', '.json', '.node'],
    },
  },
}
