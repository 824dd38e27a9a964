// What the page says when a codec is missing: the built page (dist/page) in Chromium and a real gateway, whose binary WZP_GATEWAY names.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BINARY, enter, startGateway, untilStats } from "./gateway.mjs";
import { accessible, endAll, inState, launch, open, shot } from "./harness.mjs";

/** Runs in the page and in all its workers before anything else. */
async function lackingBrowser(visit, patch) {
  await visit.context.addInitScript(patch);
  await visit.context.route(/worker[^/]*\.js/u, async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: `${patch};\n${await answer.text()}` });
  });
}

/** A decoder that takes every configuration and then fails. */
const BROKEN_DECODER = `globalThis.VideoDecoder = class {
  static isConfigSupported() { return Promise.resolve({ supported: true }); }
  state = "unconfigured";
  decodeQueueSize = 0;
  constructor(init) { this.init = init; }
  configure() { this.state = "configured"; }
  decode() { queueMicrotask(() => this.state === "closed" || this.init.error(new DOMException("no such codec", "EncodingError"))); }
  close() { this.state = "closed"; }
}`;

describe("a browser that lacks a codec", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
  let gateway;
  let browser;

  before(async () => {
    gateway = await startGateway();
    browser = await launch();
  });

  after(endAll);

  for (const [what, patch] of [
    ["by its own word", `VideoDecoder.isConfigSupported = ({ codec }) => Promise.resolve({ supported: !codec.startsWith("avc1") })`],
    ["as its decoder fails", BROKEN_DECODER],
    ["without any decoder", `delete globalThis.VideoDecoder`],
  ]) {
    test(`to decode, ${what}: the tile says so`, async () => {
      const room = `lacking-${what.replaceAll(" ", "-")}`;
      const ana = await enter(gateway, browser, "Ana", room, "&transport=ws");
      const ben = await open(browser);
      await lackingBrowser(ben, patch);
      await ben.page.goto(`${gateway.base}/${room}?name=Ben&autojoin=1&transport=ws`);
      await inState(ben.page, "call");
      await ben.page.locator(".tile:not([data-local]) .overlay").getByText("This browser cannot show this picture (H.264). Sound goes on.").waitFor();
      if (what.startsWith("as")) {
        await shot(ben.page, "gateway-codec-missing-desktop-light");
        await accessible(ben.page, "a codec is missing");
      }
      await untilStats(ben.page, `(s) => s.sources.some((x) => x.kind === "audio" && x.packets > 20)`);
      assert.deepEqual(ben.errors, []);
      await ben.context.close();
      await ana.context.close();
    });
  }

  test("to encode, and to decode sound: it is told what the others do not get, and that nobody will be heard", async () => {
    const ben = await open(browser);
    await lackingBrowser(ben, "delete globalThis.VideoEncoder; delete globalThis.AudioEncoder; delete globalThis.AudioDecoder");
    await ben.page.goto(`${gateway.base}/mute-and-deaf?name=Ben&autojoin=1&transport=ws`);
    await inState(ben.page, "call");
    for (const words of [
      "The others do not get your camera: This browser can encode neither H.264 nor AV1.",
      "The others do not get your microphone: This browser cannot encode Opus sound.",
      "This browser cannot decode Opus sound; you will hear nobody.",
    ]) {
      await ben.page.locator("#toasts").getByText(words).waitFor();
    }
    assert.deepEqual(ben.errors, []);
    await ben.context.close();
  });
});
