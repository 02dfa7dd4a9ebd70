import { fileURLToPath } from 'node:url'
import { svelte, vitePreprocess } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

const own = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** Dialogs and menus come with the application, and so does what it fetches later. */
const OVER_THE_LIST = /\/(?:LaunchDialog|Confirm|CapsuleMenu|Empty)\.svelte$/
const BELOW_THE_SCREEN = /\/lib\/virtual\.js$/
const nothingLater: Plugin = {
  name: 'nothing-later',
  enforce: 'pre',
  resolveId: (specifier) => {
    if (OVER_THE_LIST.test(specifier)) return own('src/first-paint/Nothing.svelte')
    return BELOW_THE_SCREEN.test(specifier) ? own('src/first-paint/virtual.ts') : null
  },
  resolveDynamicImport: (specifier) => (typeof specifier === 'string' ? { id: specifier, external: true } : null),
}

/** One script, which writes the list of capsules as a text in the browser: components are compiled as they are for servers. */
export default defineConfig({
  publicDir: false,
  plugins: [
    nothingLater,
    svelte({ configFile: false, preprocess: vitePreprocess({ script: true }), compilerOptions: { runes: true } }),
  ],
  resolve: {
    alias: [
      { find: '$app/state', replacement: own('src/first-paint/app-state.ts') },
      { find: '$app/navigation', replacement: own('src/first-paint/app-navigation.ts') },
      { find: 'devalue', replacement: own('src/first-paint/devalue.ts') },
      { find: /^@wrenn\/sdk$/, replacement: own('src/first-paint/sdk.ts') },
    ],
  },
  ssr: { noExternal: true },
  build: {
    ssr: own('src/first-paint/main.ts'),
    outDir: '.svelte-kit/first-paint',
    emptyOutDir: true,
    target: 'es2022',
    minify: true,
    rolldownOptions: { output: { format: 'iife', entryFileNames: 'first-paint.[hash].js', codeSplitting: false } },
  },
})
