// What the page says when a codec is missing: the built page (dist/page) in Chromium and a real gateway, whose binary WZP_GATEWAY names.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { BINARY, enter, startGateway, untilStats } from "../gateway.mjs";
import { accessible, endAll, inState, launch, open, shot } from "../harness.mjs";

/** The one that the video worker has made ahead fails, too. */
const BROKEN_SPARE = `if (globalThis.VideoDecoder) VideoDecoder.prototype.decode = () => { throw new DOMException("no such codec", "EncodingError"); };`;

/** A decoder that takes every configuration and then fails. */
const BROKEN_DECODER = `${BROKEN_SPARE} globalThis.VideoDecoder = class {
  static isConfigSupported() { return Promise.resolve({ supported: true }); }
  state = "unconfigured";
  decodeQueueSize = 0;
  constructor(init) { this.init = init; }
  configure() { this.state = "configured"; }
  decode() { queueMicrotask(() => this.state === "closed" || this.init.error(new DOMException("no such codec", "EncodingError"))); }
  close() { this.state = "closed"; }
}`;

const WITHOUT_CODECS = `${BROKEN_SPARE} for (const name of ["VideoDecoder", "VideoEncoder", "AudioDecoder", "AudioEncoder"]) delete globalThis[name]`;

describe("a browser that lacks a codec", { skip: BINARY ? false : "WZP_GATEWAY names no binary" }, () => {
  let gateway;
  let browser;

  before(async () => {
    gateway = await startGateway();
    browser = await launch();
  });

  after(endAll);

  /** Ben, by the WebSocket, in a browser that is not what it was: the page and its workers, which are there before the join, are changed by a script. */
  async function enterLacking(room, script) {
    const visit = await open(browser);
    const { page } = visit;
    await page.addInitScript(script);
    await page.goto(`${gateway.base}/${room}?name=Ben&transport=ws`);
    await inState(page, "lobby");
    for (const deadline = Date.now() + 15_000; page.workers().length < 2 && Date.now() < deadline; ) await page.waitForEvent("worker", { timeout: 1000 }).catch(() => undefined);
    for (const worker of page.workers()) await worker.evaluate(script);
    await page.getByRole("button", { name: "Join" }).click();
    await inState(page, "call");
    return visit;
  }

  test("to decode, as its decoder finds out: the tile says so, sound goes on", async () => {
    const ana = await enter(gateway, browser, "Ana", "broken", "&transport=ws");
    const { context, page, errors } = await enterLacking("broken", BROKEN_DECODER);
    await page.locator(".tile:not([data-local]) .overlay").getByText("This browser cannot show this picture (H.264). Sound goes on.").waitFor();
    await shot(page, "gateway-codec-missing-desktop-light");
    await accessible(page, "a codec is missing");
    await untilStats(page, `(s) => s.sources.some((x) => x.kind === "audio" && x.packets > 20)`);
    assert.deepEqual(errors, []);
    await context.close();
    await ana.context.close();
  });

  test("altogether, by the WebSocket: it is told who cannot be seen, what the others do not get, and that nobody will be heard", async () => {
    const ana = await enter(gateway, browser, "Ana", "bare-of-codecs", "&transport=ws");
    const { context, page, errors } = await enterLacking("bare-of-codecs", WITHOUT_CODECS);
    const read = (words) => page.locator("#announcer").getByText(words).waitFor({ state: "attached" });
    await page.locator(".tile:not([data-local]) .overlay").getByText("This browser cannot show this picture (H.264). Sound goes on.").waitFor();
    await Promise.all([
      read("The others do not get your camera: This browser can encode neither H.264 nor AV1."),
      read("The others do not get your microphone: This browser cannot encode Opus sound."),
      read("This browser cannot decode Opus sound; you will hear nobody."),
    ]);
    assert.deepEqual(errors, []);
    await context.close();
    await ana.context.close();
  });
});
