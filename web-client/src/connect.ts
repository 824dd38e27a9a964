import { RoomError } from "./error.js";
import type { Room } from "./room.js";
import type { ConnectOptions } from "./types.js";

/**
 * Joins a room and resolves when this page is in it.
 * @param url `wss://host/ws/room`, `https://host/room`, or a room's name on the host that served this page
 * @throws RoomError when the gateway refuses or cannot be reached
 */
export function connect(url: string, options: ConnectOptions): Promise<Room> {
  return Promise.reject(new RoomError("connect_failed", `Cannot join ${url}: this build has no transport yet (${options.name}).`, true));
}
