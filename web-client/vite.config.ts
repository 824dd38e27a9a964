import { fileURLToPath } from "node:url";
import { defineConfig, type UserConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

// Workers and worklets are files of their own (`?worker&url`): the page's content security policy forbids data: and blob:.
const shared: UserConfig = {
  worker: { format: "es" },
  resolve: {
    alias: [
      { find: "@wzp/client", replacement: here("src/index.ts") },
      { find: /^\/page\//, replacement: here("page/") },
    ],
  },
};

// The package: a file for each source file, so that bundlers leave out what a page does not use; URLs relative to the module.
const lib: UserConfig = {
  ...shared,
  base: "./",
  publicDir: false,
  worker: { format: "es", rollupOptions: { output: { entryFileNames: "workers/[name].bundle.js" } } },
  build: {
    outDir: here("dist/lib"),
    target: "es2022",
    minify: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      input: here("src/index.ts"),
      preserveEntrySignatures: "strict",
      output: {
        preserveModules: true,
        preserveModulesRoot: here("src"),
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
};

// The demo page; `static/` has its HTML, styles and icons, `page/` its logic.
const page: UserConfig = {
  ...shared,
  root: here("../static"),
  base: "/",
  publicDir: here("../static/public"),
  build: { outDir: here("dist/page"), emptyOutDir: true, target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { fs: { allow: [here("..")] } },
};

export default defineConfig(({ mode }) => (mode === "lib" ? lib : mode === "page" || mode === "production" || mode === "development" ? page : shared));
