import { Command } from 'commander'
import { addAudit } from './commands/audit.js'
import { addBackup } from './commands/backup.js'
import { addCapsule } from './commands/capsule.js'
import { addChannel } from './commands/channel.js'
import { addCompletion } from './commands/completion.js'
import { addDb } from './commands/db.js'
import { addDemo } from './commands/demo.js'
import { addDnsHelp } from './commands/dns-help.js'
import { addDoctor } from './commands/doctor.js'
import { addEgress } from './commands/egress.js'
import { addEvents } from './commands/events.js'
import { addGc } from './commands/gc.js'
import { addHost } from './commands/host.js'
import { addImage } from './commands/image.js'
import { addInstall } from './commands/install.js'
import { addKey } from './commands/key.js'
import { addLogin } from './commands/login.js'
import { addClean, addDown } from './commands/machine.js'
import { addPlan } from './commands/plan.js'
import { addProxy } from './commands/proxy.js'
import { addQuota } from './commands/quota.js'
import { addRegistry } from './commands/registry.js'
import { addRestore } from './commands/restore.js'
import { addRun } from './commands/run.js'
import { addShell } from './commands/shell.js'
import { addSnapshot } from './commands/snapshot.js'
import { addTeam } from './commands/team.js'
import { addTemplate } from './commands/template.js'
import { addUp } from './commands/up.js'
import { addUsage } from './commands/usage.js'
import { addUser } from './commands/user.js'

const VERSION = '0.1.0'

const help = `
Environment:
  WRENN_API_URL   the platform to talk to (default: http://127.0.0.1:8000, or the one \`wrenn up\` runs here)
  WRENN_API_KEY   its key (default: your \`wrenn login\`, else the file api-key in WRENN_DIR)
  WRENN_DIR       directory of the platform on this machine (default: /var/lib/wrenn)
  NO_COLOR        no colours

Examples:
  sudo wrenn up
  wrenn run -- python3 -c 'print(6 * 7)'
  wrenn shell "$(wrenn capsule create)"
  wrenn capsule create --timeout 10m      pauses when idle, wakes when used`

/**
 * A fresh command tree; errors of parsing are thrown, not printed, so that tests see them and `main.ts` decides the exit
 * code.
 */
export function createProgram(): Command {
  const program = new Command('wrenn')
    .description('Run code in microVMs that start in a fraction of a second.')
    .version(VERSION)
    .enablePositionalOptions()
    .addHelpText('after', help)
  addUp(program)
  addDown(program)
  addRun(program)
  addCapsule(program)
  addShell(program)
  addEgress(program)
  addSnapshot(program)
  addTemplate(program)
  addRegistry(program)
  addQuota(program)
  addPlan(program)
  addUsage(program)
  addLogin(program)
  addKey(program)
  addTeam(program)
  addUser(program)
  addAudit(program)
  addEvents(program)
  addChannel(program)
  addHost(program)
  addImage(program)
  addDoctor(program)
  addProxy(program)
  addDnsHelp(program)
  addGc(program)
  addClean(program)
  addInstall(program)
  addDb(program)
  addBackup(program)
  addRestore(program)
  addDemo(program)
  addCompletion(program)
  inherit(program, 'wrenn')
  return program
}

/** Subcommands made with `command()` before a setting was made do not have it. */
function inherit(command: Command, path: string): void {
  command.exitOverride().showHelpAfterError(`  \`${path} --help\` shows what it takes.`)
  for (const child of command.commands) inherit(child, `${path} ${child.name()}`)
}
