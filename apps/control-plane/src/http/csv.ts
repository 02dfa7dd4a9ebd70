/** With the header line that every table has (RFC 4180 §3). */
export const CSV_TYPE = 'text/csv; charset=utf-8; header=present'

/** What a program for tables takes for a formula, at the begin of a cell. */
const FORMULA = /^[=+\-@\t\r]/

/** A table that a browser keeps as a file of this name. */
export function csvHeaders(name: string): Readonly<Record<string, string>> {
  return { 'content-type': CSV_TYPE, 'content-disposition': `attachment; filename="${name}"` }
}

/** Lines of comma-separated values below their names; what is absent is empty. Texts of people's never begin as a formula does. */
export function toCsv<Column extends string>(
  columns: readonly Column[],
  rows: readonly Readonly<Partial<Record<Column, string | number | undefined>>>[],
): string {
  const lines = rows.map((row) => columns.map((column) => cell(row[column])))
  return [columns, ...lines].map((line) => `${line.join(',')}\r\n`).join('')
}

function cell(value: string | number | undefined): string {
  if (typeof value !== 'string') return value === undefined ? '' : String(value)
  const safe = FORMULA.test(value) ? `'${value}` : value
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}
