/** RFC 5321 §4.5.3.1. */
const MAX_LENGTH = 254
const MAX_LOCAL_LENGTH = 64

/**
 * One plain address, `somebody@some.host`: no display name, no list, no quoted part. What several parsers might read in several ways is
 * refused, because one of them would send the mail to somebody else.
 */
export function isMailAddress(text: string): boolean {
  const [, local, host] = /^([^\s\p{C}"`(),:;<>@[\\\]|]+)@([\p{L}\p{N}.-]+)$/u.exec(text) ?? []
  if (local === undefined || host === undefined || text.length > MAX_LENGTH || local.length > MAX_LOCAL_LENGTH)
    return false
  if (/^\.|\.\.|\.$/.test(local)) return false
  return host.split('.').every((label) => /^[\p{L}\p{N}]([\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?$/u.test(label))
}
