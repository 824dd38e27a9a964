import { fileURLToPath } from "node:url";
import { mergeConfig } from "vite";
import shared from "../../vite.config.js";

/** The page with an invented room in place of a gateway, to look at states that are hard to reach. Never part of the build. */
export default mergeConfig(shared({ mode: "page", command: "serve" }), {
  cacheDir: fileURLToPath(new URL("../../node_modules/.vite-dev-page", import.meta.url)),
  // Any name: a test opens the page by one that no browser trusts.
  server: { host: "127.0.0.1", hmr: false, allowedHosts: true },
  plugins: [
    {
      name: "invented-room",
      transformIndexHtml: { order: "pre", handler: (html: string) => html.replace("/page/main.ts", "/page/dev/main.ts") },
      configureServer(server: import("vite").ViteDevServer) {
        server.middlewares.use("/api/rooms", (request, response) => {
          const name = decodeURIComponent((request.url ?? "/").slice(1));
          const members = name.startsWith("empty") ? [] : ["Ana Lima", "Ben", "Chidi Okafor", "Dora"].map((each, index) => ({ name: each, door: index ? "webrtc" : "native" }));
          response.setHeader("content-type", "application/json");
          response.end(JSON.stringify({ room: name, members }));
        });
      },
    },
  ],
});
