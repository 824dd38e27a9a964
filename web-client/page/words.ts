import type { Door, Uplink } from "@wzp/client";
import type { Device, Trouble } from "./media.js";

/** Sound cannot even be played there, so listening and watching alone are no way out. */
const INSECURE = "Browsers allow calls only on pages opened by https:// (or on localhost). Put https:// before the address, or ask the host for such a link.";

const NAME = { microphone: "microphone", camera: "camera" } as const;

/** What is wrong with a device, and what the person can do. */
export function troubleWords(device: Device, trouble: Trouble): string {
  const it = NAME[device];
  switch (trouble) {
    case "denied":
      return `The browser does not let this page use your ${it}. Allow it by the symbol beside the address, or join without.`;
    case "missing":
      return `No ${it} found. Plug one in, or join without.`;
    case "busy":
      return `Your ${it} is in use by another program. Close that one, or choose another ${it}.`;
    case "insecure":
      return `This page was opened without encryption. ${INSECURE}`;
    case "lost":
      return `Your ${it} is gone. Plug it in again, or choose another one.`;
    case "failed":
      return `Your ${it} could not be started. Choose another one, or join without.`;
  }
}

/** Both troubles in one text; empty if all is well. */
export function troublesWords(trouble: Record<Device, Trouble | undefined>): string {
  const { microphone, camera } = trouble;
  if (microphone && microphone === camera) {
    switch (microphone) {
      case "denied":
        return "The browser does not let this page use your microphone and camera. Allow them by the symbol beside the address, or join without: you will hear and see the others.";
      case "missing":
        return "No microphone and no camera found. Plug them in, or join without: you will hear and see the others.";
      case "insecure":
        return `This page was opened without encryption. ${INSECURE}`;
      default:
    }
  }
  return [microphone && troubleWords("microphone", microphone), camera && troubleWords("camera", camera)].filter(Boolean).join(" ");
}

/** How somebody came in. */
export function doorWords(door: Door): string {
  switch (door) {
    case "native":
      return "WarzonePhone app";
    case "websocket":
      return "Browser, by WebSocket";
    case "webrtc":
      return "Browser, by WebRTC";
    case "whip":
      return "Streaming tool, by WHIP";
    case "rtmp":
      return "Streaming tool, by RTMP";
    case "uplink":
      return "From another relay";
  }
}

/** How the room stands with another relay. */
export function uplinkWords({ relay, state, message }: Uplink): string {
  const name = relay.replace(/:4433$/u, "");
  return state === "connected" ? `with ${name}` : `${name}: ${message}`;
}

/** How a call ended or why it did not begin: what happened, what the page does, what the person can do. */
export interface Closing {
  state: "ended" | "refused";
  icon: string;
  title: string;
  what: string;
  page: string;
  you: string;
  /** What the main button does. */
  action: "join" | "reload";
  /** The page tries again by itself after this many seconds. */
  retryAfter?: number;
  askToken?: boolean;
}

/** Words for an end. `code` and `message` are those of the RoomError; none means that the person left. */
export function closingWords(room: string, error: { code: string; message: string } | undefined, hadToken: boolean, wasIn: boolean, secure: boolean): Closing {
  const where = `“${room}”`;
  const released = wasIn ? "Your microphone and camera are off." : "";
  const refused = (part: Partial<Closing>): Closing => ({
    state: "refused",
    icon: "warning",
    title: "The room did not let you in",
    what: error?.message ?? "",
    page: released,
    you: "",
    action: "join",
    ...part,
  });
  if (!error)
    return { state: "ended", icon: "leave", title: "You left the call", what: `You are no longer in ${where}.`, page: released, you: "", action: "join" };
  switch (error.code) {
    case "room_full":
      return refused({
        icon: "people",
        title: "The room is full",
        what: `${where} has as many people as this gateway allows.`,
        you: "Stay here, or go to another room.",
        retryAfter: 10,
      });
    case "server_full":
      return refused({
        icon: "people",
        title: "The gateway is full",
        what: "It carries as many people as it is allowed to.",
        you: "Stay here, or come back later.",
        retryAfter: 15,
      });
    case "unauthorized":
      return refused({
        icon: "lock",
        title: hadToken ? "The token was not accepted" : "This gateway asks for a token",
        what: hadToken ? "It may be mistyped, for another room, or out of date." : "Only people who were given an access token can join.",
        you: "Enter the token that you were given, or ask the host for one.",
        askToken: true,
      });
    case "replaced":
      return refused({
        icon: "tabs",
        title: "You joined from another tab",
        what: `A newer tab or window took over your place in ${where}.`,
        page: "This tab has let go of your microphone and camera.",
        you: "Go on over there, or take the call back to this tab.",
      });
    case "bad_room":
    case "bad_name":
      return refused({ title: "That name cannot be used", you: "Go back and choose another one." });
    case "version_mismatch":
      return refused({
        icon: "again",
        title: "This page is out of date",
        what: "The gateway speaks a newer version than the page that is open here.",
        you: "Load the page anew.",
        action: "reload",
      });
    case "unsupported_browser":
      if (!secure)
        return refused({ icon: "lock", title: "This page cannot carry a call", what: "It was opened without encryption.", you: INSECURE });
      return refused({ title: "This browser cannot join", you: "Use a current version of Chrome, Edge, Firefox or Safari." });
    case "rate_limited":
    case "too_large":
    case "bad_message":
    case "refused":
      return refused({ title: wasIn ? "The gateway ended the call" : "The room did not let you in" });
    case "connect_failed":
      return {
        state: "ended",
        icon: "offline",
        title: "The gateway cannot be reached",
        what: "This page could not open a connection.",
        page: released,
        you: "Check your network, then try again. If others have the same trouble, the gateway may be down.",
        action: "join",
      };
    case "shutting_down":
      return {
        state: "ended",
        icon: "offline",
        title: "The gateway is closing down",
        what: "Its operator stopped it, perhaps for an update.",
        page: released,
        you: "Wait a minute, then join again.",
        action: "join",
      };
    case "gateway_gone":
      return {
        state: "ended",
        icon: "offline",
        title: "The connection is lost",
        what: `The gateway stopped answering while you were in ${where}.`,
        page: "This page tried to come back and gave up. Your microphone and camera are off.",
        you: "Check your network, then join again.",
        action: "join",
      };
    default:
      return {
        state: "ended",
        icon: "warning",
        title: wasIn ? "The call ended" : "Joining did not work",
        what: error.message,
        page: released,
        you: "Try again. If it happens again, tell the host what is written here.",
        action: "join",
      };
  }
}
