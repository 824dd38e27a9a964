export { connect, prepare } from "./connect.js";
export { RoomError } from "./error.js";
export { Room } from "./room.js";
export { Emitter, type Listener, type Unsubscribe } from "./events.js";
export type * from "./types.js";
