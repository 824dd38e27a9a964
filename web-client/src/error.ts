/** Why something in a room failed. `code` is for programs, `message` is a sentence for people. */
export class RoomError extends Error {
  /**
   * A code of the browser protocol, section 6 (`room_full`, `unauthorized`, `replaced`, `origin_not_allowed`, …), or one of this library:
   * `connect_failed` (never reached the gateway), `gateway_gone` (connection lost for good), `not_joined` (the room is closed),
   * `bad_room` (the address names no room), `unsupported_browser` (no WebSocket, workers, AudioWorklet or OffscreenCanvas, or the page is not
   * served over https or from localhost), `aborted` (the caller's signal).
   */
  readonly code: string;
  /** `true` when the session has ended because of it; nothing is retried then. */
  readonly fatal: boolean;

  constructor(code: string, message: string, fatal: boolean) {
    super(message);
    this.name = "RoomError";
    this.code = code;
    this.fatal = fatal;
  }
}
