/**
 * Name of the link that has the forwarder's address; without the dash of slots' links, so that their rules do not match it.
 */
export function dnsLink(prefix: string): string {
  return `${prefix}dns`
}

/** The link of the root namespace to the filter's, and that namespace; without the dash, as {@link dnsLink}. */
export function filterLink(prefix: string): string {
  return `${prefix}flt`
}

/** The links that all slots of a platform share. */
export function isSharedLink(prefix: string, link: string): boolean {
  return link === dnsLink(prefix) || link === filterLink(prefix)
}

/** Whether a link of the root namespace is the platform's with this prefix. */
export function isOwnLink(prefix: string, link: string): boolean {
  return link.startsWith(`${prefix}-`) || isSharedLink(prefix, link)
}
