import { AppError } from '@wrenn/base'
import type { Command } from 'commander'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { findRoot, layoutOf } from '../up/layout.js'
import { requireDebianPackages, requireRoot } from '../up/requirements.js'
import { installUnit, uninstallUnit } from '../up/systemd.js'

interface InstallOptions extends CommonOptions {
  readonly systemd?: boolean
  readonly name: string
}

const UNIT_NAME = /^[a-zA-Z][\w-]{0,62}$/

/** `wrenn install` and `wrenn uninstall`: the platform as a service of this machine. */
export function addInstall(program: Command): void {
  const install = program
    .command('install')
    .description('make the platform a service of this machine, started at each boot')
  withDir(withJson(withUnit(install))).action(async (options: InstallOptions) => installService(options))
  const uninstall = program
    .command('uninstall')
    .description('stop and forget the service; capsules keep running, nothing else is removed')
  withJson(withUnit(uninstall)).action(async (options: InstallOptions) => uninstallService(options))
}

function withUnit(command: Command): Command {
  return command.option('--systemd', 'by a systemd unit').option('--name <name>', 'name of the unit', 'wrenn')
}

async function installService(options: InstallOptions): Promise<void> {
  const name = check(options)
  const { config, output } = contextOf(options)
  requireRoot()
  await requireDebianPackages(false, output)
  const { dir } = layoutOf(config.dir)
  const command = [process.execPath, `${findRoot()}/apps/cli/bin/wrenn.mjs`, 'up', '--dir', dir]
  const unit = await installUnit({ name, dir, command })
  output.result({ installed: true, unit, dir }, () =>
    [
      `Wrote ${unit}; the platform in ${dir} starts at each boot.`,
      `  Now       systemctl start ${name}`,
      `  Settings  /etc/default/${name}`,
      `  Messages  journalctl -u ${name}`,
    ].join('\n'),
  )
}

async function uninstallService(options: InstallOptions): Promise<void> {
  const name = check(options)
  const { output } = contextOf(options)
  requireRoot()
  const existed = await uninstallUnit(name)
  output.result({ uninstalled: existed, name }, () =>
    existed ? `Stopped and removed ${name}.service; capsules keep running.` : `There is no unit ${name}.service.`,
  )
}

function check({ systemd, name }: InstallOptions): string {
  if (!systemd) throw new AppError('invalid_request', 'Say which service manager: --systemd.')
  if (!UNIT_NAME.test(name)) throw new AppError('invalid_request', '--name takes letters, digits, "-" and "_".')
  return name
}
