/** What an ended connection means (section 6). */

/** Errors that end the connection but not the wish to be in the room: the session comes back by itself. */
const RETRIED: ReadonlySet<string> = new Set(["idle_timeout", "join_timeout", "shutting_down"]);

/** Whether trying again can help after this fatal error. */
export function isRetried(code: string): boolean {
  return RETRIED.has(code);
}

const BY_CLOSE_CODE: ReadonlyMap<number, readonly [code: string, message: string]> = new Map([
  [4400, ["bad_message", "The gateway did not understand this page. Reload it to get the current version."]],
  [4401, ["unauthorized", "The gateway wants a valid access token for this room."]],
  [4403, ["refused", "The rules of this room refuse you."]],
  [4409, ["replaced", "You joined this room in another tab or window, which took over."]],
  [4413, ["too_large", "This page sent a message that is too large for the gateway."]],
  [4429, ["rate_limited", "This page sent more than the gateway allows."]],
  [4503, ["room_full", "The room or the gateway is full."]],
] as const);

/** The error for a close code, if the gateway closed without having said more; `undefined` for a mere loss, which is retried. */
export function errorOfClose(code: number): { code: string; message: string } | undefined {
  const found = BY_CLOSE_CODE.get(code);
  return found && { code: found[0], message: found[1] };
}
