// A plot by a program made for E2B's code interpreter, unchanged. `npm start` in one terminal, once `npx wrenn image build code-interpreter`; in a
// folder with this file `npm install @e2b/code-interpreter`, then
//   E2B_API_URL=http://127.0.0.1:8000 E2B_SANDBOX_URL=http://127.0.0.1:8000 E2B_API_KEY=$(sudo cat /var/lib/wrenn/api-key) node code-interpreter.mjs
import { writeFile } from 'node:fs/promises'
import { Sandbox } from '@e2b/code-interpreter'

const PLOT = `
import matplotlib.pyplot as plt
import numpy as np

years = np.arange(2020, 2027)
for name, growth in (('wind', 1.2), ('solar', 1.4)):
    plt.plot(years, growth ** (years - 2020), label=name)
plt.title('Capacity')
plt.xlabel('Year')
plt.legend()
plt.show()
print(f'{len(years)} years')
`

const sandbox = await Sandbox.create({ timeoutMs: 300_000 })
try {
  const { results, error } = await sandbox.runCode(PLOT, {
    onStdout: ({ line }) => process.stdout.write(line),
    timeoutMs: 120_000,
  })
  if (error) throw new Error(error.traceback)
  const [plot] = results
  await writeFile('plot.png', Buffer.from(plot.png, 'base64'))
  console.log(`plot.png: a ${plot.chart.type} chart of ${plot.chart.elements.map(({ label }) => label).join(' and ')}`)

  // Variables stay from run to run.
  const { text } = await sandbox.runCode('int(years[-1])')
  console.log(`last: ${text}`)
} finally {
  await sandbox.kill()
}
