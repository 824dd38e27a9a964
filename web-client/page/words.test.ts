import { describe, expect, it } from "vitest";
import { closingWords, doorWords, troublesWords, troubleWords } from "./words.js";

describe("a page that was opened without encryption", () => {
  it("says that https is what is missing, and does not promise listening", () => {
    for (const words of [troubleWords("camera", "insecure"), troublesWords({ microphone: "insecure", camera: "insecure" })]) {
      expect(words).toMatch(/https:\/\//u);
      expect(words).not.toMatch(/listen|hear and see/u);
    }
  });

  it("is not blamed on the browser", () => {
    const error = { code: "unsupported_browser", message: "Calls need a secure page (https)." };
    const insecure = closingWords("tea", error, false, false, false);
    expect(insecure.title).not.toMatch(/browser/u);
    expect(insecure.you).toMatch(/Put https:\/\/ before the address/u);
    expect(closingWords("tea", error, false, false, true).title).toMatch(/browser/u);
  });
});

describe("words", () => {
  it("tell of every door", () => {
    const doors = (["native", "websocket", "webrtc", "whip", "rtmp", "uplink"] as const).map(doorWords);
    expect(new Set(doors).size).toBe(doors.length);
    expect(doors.every((words) => words.length > 5)).toBe(true);
  });

  it("tell of each refusal what a person can do", () => {
    for (const code of ["room_full", "server_full", "unauthorized", "replaced", "bad_name", "version_mismatch", "connect_failed", "shutting_down", "gateway_gone", "something_new"]) {
      const { title, you } = closingWords("tea", { code, message: "" }, false, false, true);
      expect(title, code).not.toBe("");
      expect(you, code).not.toBe("");
    }
  });
});
