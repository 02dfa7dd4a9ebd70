import { Argument, type Command } from 'commander'
import { Output } from '../output.js'

interface Node {
  /** The words up to here: `capsule ls`. */
  readonly path: string
  readonly words: readonly string[]
}

/** Every command of the tree with what may follow it. */
function nodesOf(command: Command, path = ''): Node[] {
  const children = command.commands.filter((child) => child.name() !== 'help')
  const options = command.options.flatMap((option) => [option.short, option.long].filter((flag) => flag !== undefined))
  const words = [...children.flatMap((child) => [child.name(), ...child.aliases()]), ...options, '--help']
  const below = children.flatMap((child) =>
    [child.name(), ...child.aliases()].flatMap((name) => nodesOf(child, path ? `${path} ${name}` : name)),
  )
  return [{ path, words }, ...below]
}

function bash(nodes: readonly Node[]): string {
  const cases = nodes.map(({ path, words }) => `    '${path}') words='${words.join(' ')}' ;;`).join('\n')
  return `# wrenn completion bash > /etc/bash_completion.d/wrenn
_wrenn() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path='' word words=''
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in --) return ;; -*) ;; *) case "$path $word" in ${prefixes(nodes)}) path="\${path:+$path }$word" ;; esac ;; esac
  done
  case "$path" in
${cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _wrenn wrenn`
}

/** Patterns of "path so far" + " " + "next word" that are commands. */
function prefixes(nodes: readonly Node[]): string {
  const known = nodes
    .filter(({ path }) => path !== '')
    .map(({ path }) => (path.includes(' ') ? `'${path}'` : `' ${path}'`))
  return known.join('|')
}

function fish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap(({ path, words }) => {
    const seen =
      path === ''
        ? '__fish_use_subcommand'
        : path
            .split(' ')
            .map((word) => `__fish_seen_subcommand_from ${word}`)
            .join('; and ')
    return `complete -c wrenn -n '${seen}' -a '${words.join(' ')}'`
  })
  return ['# wrenn completion fish > ~/.config/fish/completions/wrenn.fish', ...lines].join('\n')
}

/**
 * `wrenn completion <shell>`: a script made of the program's own commands and options. To be added last, when all others are
 * there.
 */
export function addCompletion(program: Command): void {
  const scripts = {
    bash: (nodes: readonly Node[]) => bash(nodes),
    zsh: (nodes: readonly Node[]) =>
      `# wrenn completion zsh >> ~/.zshrc\nautoload -U +X bashcompinit && bashcompinit\n${bash(nodes)}`,
    fish: (nodes: readonly Node[]) => fish(nodes),
  }
  program
    .command('completion')
    .description('print a completion script for a shell')
    .addArgument(new Argument('<shell>').choices(Object.keys(scripts)))
    .addHelpText('after', '\nExample:\n  source <(wrenn completion bash)     in ~/.bashrc, to have it always')
    .action((shell: keyof typeof scripts) => {
      new Output({ json: false, color: false }).result(undefined, () => scripts[shell](nodesOf(program)))
    })
}
