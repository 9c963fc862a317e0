import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

const API = ["/generate", "/feedback", "/users", "/status", "/metrics", "/health", "/version"];

// Every address is relative, so that the page also works below a path of a proxy. The server's policy allows no inline
// content: nothing is inlined.
export default defineConfig({
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: "../../server/idiolect_server/page/built",
    emptyOutDir: true,
    assetsDir: "page",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: { proxy: Object.fromEntries(API.map((path) => [path, "http://127.0.0.1:8000"])) },
});
