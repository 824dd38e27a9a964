/** Longest name of a room, characters. */
export const MAX_ROOM_NAME = 64;

/** Names that are not rooms, as the gateway has them: the protocol answers to the first two itself, the others are paths of the web server. */
export const RESERVED_NAMES: readonly string[] = ["ping", "version", "ws", "whip", "whep", "api", "assets", "metrics", "health", "healthz"];
/** `_`: connections with another purpose. `call-`: media of direct calls. */
export const RESERVED_PREFIXES: readonly string[] = ["_", "call-"];

/** Why a room cannot be called that, in a sentence; `undefined` if it can. The gateway has the last word. */
export function roomNameProblem(name: string): string | undefined {
  const trimmed = name.trim();
  const folded = trimmed.toLowerCase();
  if (!trimmed) return "A room's name has at least one character.";
  if (Array.from(trimmed).length > MAX_ROOM_NAME) return `A room's name has at most ${MAX_ROOM_NAME} characters.`;
  const sign = /[/?#]/u.exec(trimmed)?.[0];
  if (sign !== undefined) return `A room's name has no “${sign}”, which means something else in a link.`;
  if (/\p{Cc}/u.test(trimmed)) return "A room's name has no control characters.";
  if (RESERVED_NAMES.includes(folded) || RESERVED_PREFIXES.some((prefix) => folded.startsWith(prefix))) return `The name “${trimmed}” is reserved. Choose another name.`;
  return undefined;
}
