// Fails when fewer exports of our code than the floor have a doc comment, and names the files where most are missing.
// It counts, it cannot read: whether a comment is worth reading is for the review.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { fail, root, say } from './prepare.mjs'

const FLOOR_PERCENT = 80
const MAX_FILES_NAMED = 15
/** What is generated, and what only tests use, is documented by where it comes from. */
const EXEMPT = /\.test\.ts$|\.fixture\.ts$|_pb\.ts$|\/(?:gen|testing)\/|^packages\/testkit\//

/** @returns the paths of all source files that git knows or would take up, below `root` */
function sourceFiles() {
  const patterns = ['apps/*/src/*.ts', 'packages/*/src/*.ts'] // git's `*` also stands for folders below
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate', ...patterns]
  const listed = execFileSync('git', args, { cwd: root, encoding: 'utf8' })
  return listed.split('\n').filter((file) => file !== '' && !EXEMPT.test(file) && existsSync(join(root, file)))
}

/** @param {ts.Statement} statement */
function isExported(statement) {
  if (!ts.canHaveModifiers(statement)) return false
  return ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false
}

/** @param {ts.Statement} statement */
function namesOf(statement) {
  if (ts.isVariableStatement(statement)) return statement.declarationList.declarations.map(({ name }) => name.getText())
  return [statement.name?.getText() ?? 'default']
}

/**
 * Names of what a file declares and exports, by whether they have a doc comment. Of a function's overloads one needs it.
 * @param {string} file
 */
function exportsOf(file) {
  const source = ts.createSourceFile(file, readFileSync(join(root, file), 'utf8'), ts.ScriptTarget.Latest, true)
  const all = new Map()
  for (const statement of source.statements.filter(isExported)) {
    const isDocumented = ts.getJSDocCommentsAndTags(statement).length > 0
    for (const name of namesOf(statement)) all.set(name, isDocumented || all.get(name) === true)
  }
  return { file, names: [...all.keys()], missing: [...all].flatMap(([name, has]) => (has ? [] : [name])) }
}

/** @param {readonly unknown[][]} lists */
const total = (lists) => lists.reduce((sum, list) => sum + list.length, 0)

const found = sourceFiles().map(exportsOf)
const all = total(found.map(({ names }) => names))
const missing = total(found.map((each) => each.missing))
const percent = (100 * (all - missing)) / all
const verdict = `${percent.toFixed(1)} % of ${all} exports have a doc comment; the floor is ${FLOOR_PERCENT} %`
if (!(percent >= FLOOR_PERCENT)) {
  const lacking = found.filter((each) => each.missing.length > 0)
  const worst = lacking.toSorted((a, b) => b.missing.length - a.missing.length).slice(0, MAX_FILES_NAMED)
  for (const { file, missing: names } of worst) say(`${file}: ${names.join(' ')}`)
  fail(verdict)
}
say(verdict)
