import { roomNameProblem } from "../src/room/name.js";

/** What the address of the page asks for. */
export interface PageParameters {
  /** Empty if the address names none. */
  room: string;
  name: string | undefined;
  token: string | undefined;
  /** Join at once, without a click. */
  autojoin: boolean;
  /** Echo cancelling, noise suppression and gain control of the microphone. */
  processing: boolean;
  transport: "auto" | "webrtc" | "websocket";
  camera: boolean;
  microphone: boolean;
}

const off = (value: string | null): boolean => value === "off" || value === "0" || value === "false";

/** Reads `/{room}?name=…&autojoin=1&processing=off&transport=ws&camera=off&mic=off&token=…`. */
export function readParameters(location: { pathname: string; search: string }): PageParameters {
  const query = new URLSearchParams(location.search);
  const autojoin = query.get("autojoin");
  const transport = query.get("transport");
  return {
    room: roomFromPath(location.pathname) || (query.get("room") ?? ""),
    name: query.get("name") ?? undefined,
    token: query.get("token") ?? undefined,
    autojoin: autojoin !== null && !off(autojoin),
    processing: !off(query.get("processing")),
    transport: transport === "ws" || transport === "websocket" ? "websocket" : transport === "webrtc" ? "webrtc" : "auto",
    camera: !off(query.get("camera")),
    microphone: !off(query.get("mic")),
  };
}

function roomFromPath(path: string): string {
  const name = path.replace(/^\/+|\/+$/gu, "");
  if (name === "index.html" || name.includes("/")) return "";
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** Why a room cannot be called that; `undefined` if it can. The gateway has the last word. */
export function roomProblem(room: string): string | undefined {
  return room.trim() ? roomNameProblem(room) : "Give the room a name. Everybody who uses the same name meets there.";
}

/** The link that brings somebody to a room. */
export function roomLink(room: string): string {
  return `${window.location.origin}/${encodeURIComponent(room.trim())}`;
}

const FIRST = ["amber", "bright", "calm", "clear", "early", "gentle", "green", "merry", "misty", "quiet", "silver", "sunny", "swift", "warm"];
const SECOND = ["bay", "bridge", "brook", "cedar", "cove", "field", "harbor", "heron", "island", "lark", "maple", "otter", "river", "willow"];

/** A name for a new room, easy to say on the phone, hard to meet by chance. */
export function inventRoom(): string {
  const random = crypto.getRandomValues(new Uint16Array(3));
  const pick = (words: string[], at: number): string => words[(random[at] ?? 0) % words.length] ?? "room";
  return `${pick(FIRST, 0)}-${pick(SECOND, 1)}-${100 + ((random[2] ?? 0) % 900)}`;
}
