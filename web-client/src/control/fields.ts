/** Reading JSON whose shape nobody guarantees. Readers give `undefined` for a field of the wrong type. */

export type Json = Record<string, unknown>;

export function object(value: unknown): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

export function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

export function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

export function flag(value: unknown): boolean {
  return value === true;
}

export function oneOf<T extends string>(value: unknown, allowed: readonly T[]): T | undefined {
  return allowed.find((candidate) => candidate === value);
}

/** The items that the reader takes; the others are left out, so that one odd item does not cost the whole list. */
export function list<T>(value: unknown, reader: (item: unknown) => T | undefined): T[] {
  if (!Array.isArray(value)) return [];
  return value.map(reader).filter((item): item is T => item !== undefined);
}
