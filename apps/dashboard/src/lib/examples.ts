/** A call in three languages, to copy. */
export type Examples = readonly { readonly name: string; readonly text: string }[]

/** Of a name, to a terminal that is pasted into: some of them end or clear the line, whatever quotes are around them. */
const CONTROLS = /\p{Cc}/u

/** Names of folders are made by what runs in a capsule; none of them may become a command of who copies an example. */
function shellWord(text: string): string {
  if (!CONTROLS.test(text)) return quoted(text)
  return `"$(printf %b ${quoted(text.replace(/[\\\p{Cc}]/gu, octal))})"`
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

/** Its bytes as `printf %b` reads them. */
function octal(character: string): string {
  return Array.from(new TextEncoder().encode(character), (byte) => `\\0${byte.toString(8).padStart(3, '0')}`).join('')
}

/** How a first capsule is made without this page. */
export function launchExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: "wrenn run -- python3 -c 'print(6*7)'" },
    {
      name: 'SDK',
      text: [
        "import { Wrenn } from '@wrenn/sdk'",
        '',
        `const wrenn = new Wrenn({ apiUrl: '${origin}', apiKey })`,
        'await using capsule = await wrenn.capsules.create()',
        "console.log((await capsule.exec('uname -a')).stdout)",
      ].join('\n'),
    },
    {
      name: 'curl',
      text: `curl -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{}' ${origin}/v1/capsules`,
    },
  ]
}

/** How a command is started that goes on by itself. */
export function processExamples(origin: string, id: string): Examples {
  return [
    { name: 'CLI', text: `wrenn capsule exec ${id} -d -- python3 -m http.server\nwrenn capsule ps ${id}` },
    {
      name: 'SDK',
      text: [
        `const capsule = await wrenn.capsules.get('${id}')`,
        "const { tag } = await capsule.start('python3 -m http.server')",
        'for await (const event of capsule.attach(tag, { fromOffset: 0 })) console.log(event)',
      ].join('\n'),
    },
    {
      name: 'curl',
      text: `curl -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{"cmd": "python3", "args": ["-m", "http.server"], "background": true}' \\\n  ${origin}/v1/capsules/${id}/exec`,
    },
  ]
}

/** How a file comes into a folder of a capsule. */
export function uploadExamples(origin: string, id: string, folder: string): Examples {
  const path = `${folder === '/' ? '' : folder}/data.csv`
  return [
    { name: 'CLI', text: `wrenn capsule cp data.csv ${shellWord(`${id}:${path}`)}` },
    {
      name: 'SDK',
      text: `const capsule = await wrenn.capsules.get('${id}')\nawait capsule.files.write(${JSON.stringify(path)}, 'a,b\\n1,2\\n')`,
    },
    {
      name: 'curl',
      text: `curl -H "X-API-Key: $KEY" -T data.csv \\\n  ${shellWord(`${origin}/v1/capsules/${id}/files?path=${encodeURIComponent(path)}`)}`,
    },
  ]
}

/** How a snapshot is made of a capsule. */
export function snapshotExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: 'wrenn capsule snapshot cl-… ready' },
    {
      name: 'SDK',
      text: "const { name } = await capsule.snapshot('ready')\nconst copy = await wrenn.capsules.create({ template: name })",
    },
    {
      name: 'curl',
      text: `curl -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{"capsule_id": "cl-…", "name": "ready"}' ${origin}/v1/snapshots`,
    },
  ]
}

/** How a key is made and used. */
export function keyExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: 'wrenn key create ci --scope capsules --expires 90d' },
    {
      name: 'SDK',
      text: "const { key } = await wrenn.apiKeys.create({ name: 'ci', scopes: ['capsules'] })",
    },
    { name: 'curl', text: `curl -H "X-API-Key: $KEY" ${origin}/v1/capsules` },
  ]
}

/** How a plan is made and given to a team. */
export function planExamples(origin: string): Examples {
  return [
    {
      name: 'CLI',
      text: 'wrenn plan set free --running 3 --memory 8g --calls 600\nwrenn quota set team-… --plan free',
    },
    {
      name: 'SDK',
      text: "await wrenn.teams.setPlan('free', { runningCapsules: 3 })\nawait wrenn.teams.setLimits('team-…', { plan: 'free' })",
    },
    {
      name: 'curl',
      text: `curl -X PUT -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{"running_capsules": 3}' ${origin}/v1/admin/plans/free`,
    },
  ]
}

/** How a machine becomes a host. */
export function hostExamples(origin: string): Examples {
  return [
    {
      name: 'CLI',
      text: `wrenn host token\n# on the machine:\nsudo wrenn host join ${origin}\nsudo wrenn up`,
    },
    {
      name: 'SDK',
      text: 'const { token } = await wrenn.hosts.create() // for `wrenn host join` on the machine\nconst hosts = await wrenn.hosts.list()',
    },
    {
      name: 'curl',
      text: `curl -X POST -H "X-API-Key: $KEY" ${origin}/v1/hosts\ncurl -H "X-API-Key: $KEY" ${origin}/v1/hosts`,
    },
  ]
}

/** How a platform is started that has its capsules on machines that join. */
export const remoteHostExamples: Examples = [
  {
    name: 'CLI',
    text: 'wrenn down\nwrenn up --remote-host --host 0.0.0.0 --domain wrenn.example --tls\nwrenn host token',
  },
  { name: 'Setting', text: 'WRENN_REMOTE_HOST=1' },
]

/** How a channel is made. */
export function channelExamples(origin: string): Examples {
  return [
    {
      name: 'CLI',
      text: "wrenn channel add ours webhook --set url=https://example.com/hook --events 'capsule.*'\nwrenn channel add chat slack",
    },
    {
      name: 'SDK',
      text: "const config = { url: 'https://example.com/hook' }\nconst { secret } = await wrenn.channels.create('ours', 'webhook', config, { events: ['capsule.*'] })",
    },
    {
      name: 'curl',
      text: `curl -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{"name": "ours", "provider": "webhook", "config": {"url": "https://example.com/hook"}, "events": ["capsule.*"]}' \\\n  ${origin}/v1/channels`,
    },
  ]
}

/** How usage is looked up. */
export function usageExamples(origin: string, month: string, from: string, to: string): Examples {
  return [
    { name: 'CLI', text: `wrenn usage --month ${month}\nwrenn usage --month ${month} --csv > usage.csv` },
    {
      name: 'SDK',
      text: `const { total } = await wrenn.usage.get({ from: '${from}', to: '${to}' })\nconsole.log(total.vcpuSeconds / 3600, 'vCPU hours')`,
    },
    { name: 'curl', text: `curl -H "X-API-Key: $KEY" '${origin}/v1/capsules/usage?from=${from}&to=${to}'` },
  ]
}

/** How builds log in at a registry. */
export function registryExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: 'wrenn registry login ghcr.io robot < token' },
    { name: 'SDK', text: "await wrenn.registries.login('ghcr.io', 'robot', token)" },
    {
      name: 'curl',
      text: `curl -X PUT -H "X-API-Key: $KEY" -H 'content-type: application/json' \\\n  -d '{"username": "robot", "password": "…"}' ${origin}/v1/registries/ghcr.io`,
    },
  ]
}

/** How a template is built from a Dockerfile. */
export function buildExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: 'wrenn template build web .\nwrenn capsule create --template web' },
    {
      name: 'SDK',
      text: [
        "import { readDockerfile } from '@wrenn/sdk/dockerfile'",
        '',
        "const recipe = await readDockerfile('FROM base\\nRUN apt-get update && apt-get install -y jq')",
        "await wrenn.templates.build('web', recipe, { onLine: ({ message }) => console.log(message) })",
      ].join('\n'),
    },
    {
      name: 'curl',
      text: [
        'api() { curl -H "X-API-Key: $KEY" -H \'content-type: application/json\' "$@"; }',
        `id=$(api -d '{"name": "web"}' ${origin}/v1/templates/builds | jq -r .id)`,
        `api -d '{"stages": [{"from": "base", "steps": [{"type": "RUN", "args": ["apt-get update"]}]}]}' \\`,
        `  ${origin}/v1/templates/builds/$id/start`,
        `api "${origin}/v1/templates/builds/$id/log?wait_sec=20"`,
      ].join('\n'),
    },
  ]
}

/** How a template is made of an image of a registry. */
export function imageExamples(origin: string): Examples {
  return [
    { name: 'CLI', text: "echo 'FROM python:3.12' | wrenn template build python -f - ." },
    {
      name: 'SDK',
      text: [
        "import { imageRecipe } from '@wrenn/sdk'",
        '',
        "await wrenn.templates.build('python', imageRecipe('docker.io/library/python:3.12'))",
      ].join('\n'),
    },
    {
      name: 'curl',
      text: [
        'api() { curl -H "X-API-Key: $KEY" -H \'content-type: application/json\' "$@"; }',
        `id=$(api -d '{"name": "python"}' ${origin}/v1/templates/builds | jq -r .id)`,
        `api -d '{"stages": [{"from": "docker.io/library/python:3.12", "steps": []}]}' \\`,
        `  ${origin}/v1/templates/builds/$id/start`,
      ].join('\n'),
    },
  ]
}

/** How a template is made of a file. */
export function fileExamples(origin: string): Examples {
  return [
    {
      name: 'CLI',
      text: 'docker save -o app.tar app:2\nwrenn template build app --image-file app.tar\nwrenn template import web.wrenn',
    },
    {
      name: 'SDK',
      text: [
        "import { imageFileRecipe } from '@wrenn/sdk'",
        '',
        "const file = { hash: sha256, open: () => Readable.toWeb(createReadStream('app.tar')) }",
        "await wrenn.templates.build('app', imageFileRecipe(file))",
        "await wrenn.templates.import('web', { hash: sha256OfExport, open: openExport })",
      ].join('\n'),
    },
    {
      name: 'curl',
      text: [
        'api() { curl -H "X-API-Key: $KEY" -H \'content-type: application/json\' "$@"; }',
        'hash=$(sha256sum < app.tar | cut -c 1-64)',
        `id=$(api -d '{"name": "app"}' ${origin}/v1/templates/builds | jq -r .id)`,
        `url=$(api ${origin}/v1/templates/builds/$id/files/$hash | jq -r .upload_url)`,
        'curl -T app.tar "$url"',
        'api -d "{\\"stages\\": [{\\"from\\": \\"app\\", \\"steps\\": []}], \\"image_files\\": {\\"app\\": {\\"files_hash\\": \\"$hash\\"}}}" \\',
        `  ${origin}/v1/templates/builds/$id/start`,
      ].join('\n'),
    },
  ]
}
