// A program made for E2B, unchanged. `npm start` in one terminal; in a folder with this file `npm install e2b`, then
//   E2B_API_URL=http://127.0.0.1:8000 E2B_SANDBOX_URL=http://127.0.0.1:8000 E2B_API_KEY=$(sudo cat /var/lib/wrenn/api-key) node e2b.mjs
import { Sandbox } from 'e2b'

const sandbox = await Sandbox.create({ timeoutMs: 120_000 })
try {
  await sandbox.files.write('/home/user/numbers.txt', [3, 1, 2].join('\n'))
  const sorted = await sandbox.commands.run('sort -n /home/user/numbers.txt | paste -sd, -')
  console.log(`sorted: ${sorted.stdout.trim()}`)
  await sandbox.commands.run('for i in 1 2 3; do echo tick $i; sleep 0.1; done', {
    onStdout: (text) => process.stdout.write(text),
  })
  await sandbox.pause()
  const again = await Sandbox.connect(sandbox.sandboxId)
  console.log(`kept: ${(await again.files.read('/home/user/numbers.txt')).split('\n').length} lines`)
} finally {
  await Sandbox.kill(sandbox.sandboxId)
}
