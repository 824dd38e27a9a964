import { RoomError } from "../error.js";
import { roomNameProblem } from "./name.js";

/** Where a room is: the WebSocket to open, and the room's name. */
export interface RoomAddress {
  socketUrl: string;
  room: string;
}

/**
 * Understands `wss://host/ws/room`, `https://host/room` and a bare room name, which means one on the host of `base`.
 * @throws RoomError `bad_room`
 */
export function roomAddress(input: string, base: string): RoomAddress {
  const text = input.trim();
  const absolute = /^(wss?|https?):\/\//i.test(text);
  if (!absolute && /[^/]\/./u.test(text)) {
    throw new RoomError("bad_room", `“${text}” is no room's name, and an address begins with https:// or http://.`, true);
  }
  let url: URL;
  try {
    url = absolute ? new URL(text) : new URL(`/${encodeURIComponent(text.replace(/^\/+/, ""))}`, base);
  } catch {
    throw new RoomError("bad_room", `"${input}" is neither an address nor the name of a room.`, true);
  }
  const parts = url.pathname.split("/").filter((part) => part !== "");
  const encoded = parts.at(-1);
  if (encoded === undefined || (parts.length > 1 && parts.at(-2) !== "ws")) {
    throw new RoomError("bad_room", `"${input}" names no room; expected wss://host/ws/room, https://host/room or a room's name.`, true);
  }
  const room = decodeURIComponent(encoded);
  const problem = roomNameProblem(room);
  if (problem !== undefined) throw new RoomError("bad_room", problem, true);
  // A gateway may live under a path: what comes before the room is kept.
  const prefix = parts.slice(0, parts.at(-2) === "ws" ? -2 : -1).map((part) => `/${part}`).join("");
  const secure = url.protocol === "wss:" || url.protocol === "https:";
  return { socketUrl: `${secure ? "wss" : "ws"}://${url.host}${prefix}/ws/${encoded}`, room };
}

/** What the gateway says to anybody who asks by HTTP: no reason, only the proof that it is there. */
const ASKED_BY_HTTP: ReadonlySet<string> = new Set(["subprotocol_required", "not_a_websocket"]);

/**
 * A browser does not tell a page why a WebSocket was refused. Asking the same address by HTTP gives the gateway's answer, if it is reached.
 * @returns why not, if something answers: the gateway, or a server that is none
 */
export async function refusal(socketUrl: string): Promise<RoomError | undefined> {
  let body: { code?: unknown; message?: unknown } | undefined;
  try {
    const response = await fetch(socketUrl.replace(/^ws/, "http"), { signal: AbortSignal.timeout(2000) });
    // A proxy whose gateway is not there right now.
    if (response.status >= 500) return undefined;
    const text = await response.text();
    body = parsed(text);
  } catch {
    return undefined;
  }
  if (typeof body?.code !== "string") {
    const { protocol, host, pathname } = new URL(socketUrl);
    const open = `${protocol === "wss:" ? "https" : "http"}://${host}`;
    const room = pathname.split("/").at(-1) ?? "";
    return new RoomError("connect_failed", `What answers at ${open} is no gateway. If that is elsewhere, give the whole address, as https://call.example/${room}.`, true);
  }
  if (ASKED_BY_HTTP.has(body.code)) return undefined;
  return new RoomError(body.code, typeof body.message === "string" ? sentence(body.message) : "The gateway refuses this room.", true);
}

/** The same for one that may only be slow: if a gateway says that it is well, nothing else is asked, which browsers would log as an error. */
export async function doubted(socketUrl: string): Promise<RoomError | undefined> {
  try {
    const health = await fetch(socketUrl.replace(/^ws/, "http").replace(/ws\/[^/]*$/u, "health"), { signal: AbortSignal.timeout(2000) });
    if (health.ok && (await health.text()).trim() === "ok") return undefined;
  } catch {
    // Not reached, or on another host, which does not let this page read it.
    return undefined;
  }
  return refusal(socketUrl);
}

function parsed(text: string): { code?: unknown; message?: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** What the gateway says, which is the second half of a line in a log, as a sentence. */
export function sentence(text: string): string {
  if (text === "") return text;
  const begun = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?…]$/u.test(begun) ? begun : `${begun}.`;
}

/** What to say, and what to try, when there is no way to a gateway; browsers do not tell a page why. */
export function unreachable(socketUrl: string, ownHost: string): string {
  const { protocol, host } = new URL(socketUrl);
  const encrypted = protocol === "wss:";
  const open = `${encrypted ? "https" : "http"}://${host}/`;
  if (host === ownHost) return `The gateway at ${open} cannot be reached.`;
  return encrypted
    ? `The gateway at ${open} cannot be reached. If it made its certificate itself, open that address once and accept it. If it runs with --no-tls, write http.`
    : `The gateway at ${open} cannot be reached. If it speaks TLS, as it does without --no-tls, write https.`;
}
