import { goto } from '$app/navigation'
import type { Shell } from './context.js'

/** Ends the session; a failure leaves everything as it was and says so. */
export async function signOut({ wrenn, session, toasts }: Shell): Promise<void> {
  try {
    await wrenn.account.logout()
  } catch (error) {
    toasts.fail('Signing out', error)
    return
  }
  await goto('/login')
  session.forget()
}

/** Works in another team. Everything on the page is of the old one, so the page begins anew. */
export async function switchTeam({ wrenn, toasts }: Shell, teamId: string): Promise<void> {
  try {
    await wrenn.account.switchTeam(teamId)
    location.assign('/dashboard/capsules')
  } catch (error) {
    toasts.fail('Switching the team', error)
  }
}
