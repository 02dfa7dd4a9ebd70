import adapter from '@sveltejs/adapter-static'
import { vitePreprocess } from '@sveltejs/vite-plugin-svelte'

/** @type {import('@sveltejs/kit').Config} */
export default {
  preprocess: vitePreprocess({ script: true }),
  compilerOptions: { runes: true },
  kit: {
    adapter: adapter({ fallback: 'index.html' }),
    // One shell at every address; the control plane says in a header what it may do.
    output: { preloadStrategy: 'modulepreload' },
    // A time would make every build another one.
    version: { name: 'wrenn' },
    alias: { $components: 'src/components' },
    typescript: {
      config: (config) => {
        config.include.push('../svelte.config.js')
      },
    },
  },
}
