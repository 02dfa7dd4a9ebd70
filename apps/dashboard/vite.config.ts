import { sveltekit } from '@sveltejs/kit/vite'
import tailwindcss from '@tailwindcss/vite'
import { defineConfig, type Plugin } from 'vite'

/**
 * The root component that SvelteKit writes hides what it tells screen readers by a `style` attribute, which the policy of the page
 * refuses; a class does the same.
 */
const announcerByClass: Plugin = {
  name: 'announcer-by-class',
  enforce: 'pre',
  transform(code, id) {
    if (!/\/generated\/root\.svelte$/.test(id)) return undefined
    const changed = code.replace(/(<div id="svelte-announcer"[^>]*?) style="[^"]*"/, '$1 class="sr-only"')
    if (changed === code) this.error('The root component of SvelteKit has no announcer with a style any more.')
    return changed
  },
}

/** Pages, and parts that are loaded later, that use a module. */
const SHARED_BY = 6
/** What every page of the dashboard has, and the page that is opened first and most. */
const FIRST_PAGE = /\/src\/routes\/dashboard\/(?:\+layout|capsules\/\+page)\.svelte$/

export default defineConfig({
  plugins: [announcerByClass, tailwindcss(), sveltekit()],
  // For @balena/dockerignore, which is written for Node.js.
  resolve: { alias: { path: 'path-browserify' } },
  build: {
    target: 'es2022',
    // A `data:` font would need a policy of its own.
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        // What most pages have in common is one file: fifty of some hundred bytes each cost a request each before anything is seen.
        // What the first page has beside that is another one, which the shell says at once.
        codeSplitting: {
          groups: [
            { name: 'shared', minShareCount: SHARED_BY, priority: 2 },
            { name: 'first-page', test: FIRST_PAGE, priority: 1 },
          ],
        },
      },
    },
  },
})
