import { RoomError } from "./error.js";
import { Playback } from "./playout/playback.js";
import type { Room } from "./room.js";
import { doubted, refusal, roomAddress } from "./room/address.js";
import { LiveRoom } from "./room/live-room.js";
import { Threads } from "./room/threads.js";
import type { ConnectOptions } from "./types.js";

const ID_KEY = "wzp.id";
/** Not in the room after so long: is a gateway there at all? ms */
const DOUBT_MS = 2000;

/**
 * Joins a room and resolves when this page is in it.
 * @param url `https://host/room` (`http:` for a gateway without TLS), `wss://host/ws/room`, or a room's name on the host that served this page
 * @throws RoomError when the gateway refuses or cannot be reached
 */
export async function connect(url: string, options: ConnectOptions): Promise<Room> {
  requireBrowser();
  const { signal } = options;
  if (signal?.aborted) throw aborted();
  const address = roomAddress(url, location.href);
  const room = new LiveRoom({
    alias: options.alias,
    id: options.id ?? ownId(),
    token: options.token,
    transport: options.transport ?? "auto",
    audioContext: options.audioContext,
    address,
  });
  const onAbort = (): void => void room.disconnect("aborted");
  signal?.addEventListener("abort", onAbort, { once: true });
  // A server that is no gateway may leave a WebSocket without any answer, several times.
  let refused: RoomError | undefined;
  const doubt = setTimeout(() => {
    void doubted(address.socketUrl).then((reason) => {
      if (!reason || room.state !== "connecting") return;
      refused = reason;
      void room.disconnect("refused");
    });
  }, DOUBT_MS);
  try {
    return await room.join();
  } catch (error) {
    if (signal?.aborted) throw aborted();
    if (refused) throw refused;
    if (error instanceof RoomError && error.code === "connect_failed") throw (await refusal(address.socketUrl)) ?? error;
    throw error;
  } finally {
    clearTimeout(doubt);
    signal?.removeEventListener("abort", onAbort);
  }
}

/**
 * Starts what the next {@link connect} needs, which is then quicker by some tens of milliseconds. For a page that shows something before it
 * joins; call it once that is there.
 * @param url the room, as for `connect`: also opens the connection to its gateway, which is kept for 8 s and spares the join three round
 * trips, and makes sound ready if there has been a gesture. For the moment before somebody joins, when the pointer is over the button; nobody
 * in the room hears of it.
 * @throws RoomError `bad_room`, `unsupported_browser`
 */
export function prepare(url?: string): void {
  requireBrowser();
  Threads.prepare(url === undefined ? undefined : roomAddress(url, location.href).socketUrl);
  if (url !== undefined) Playback.prepare();
}

function aborted(): RoomError {
  return new RoomError("aborted", "The attempt to join was given up.", true);
}

function requireBrowser(): void {
  const missing = [
    typeof WebSocket === "undefined" && "WebSocket",
    typeof Worker === "undefined" && "workers",
    typeof AudioWorkletNode === "undefined" && "AudioWorklet",
    typeof OffscreenCanvas === "undefined" && "OffscreenCanvas",
  ].filter((name) => name !== false);
  if (missing.length === 0) return;
  const cause = isSecureContext ? `This browser lacks ${missing.join(", ")}.` : "Calls need a secure page (https).";
  throw new RoomError("unsupported_browser", `${cause} Use a current browser over https.`, true);
}

/** The browser's lasting secret. Where storage is forbidden it lasts as long as the page. */
function ownId(): string {
  const fresh = (): string => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const kept = localStorage.getItem(ID_KEY);
    if (kept && /^[A-Za-z0-9_-]{16,64}$/.test(kept)) return kept;
    const id = fresh();
    localStorage.setItem(ID_KEY, id);
    return id;
  } catch {
    return fresh();
  }
}
