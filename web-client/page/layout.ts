/** Where a tile stands, px. */
export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

const WIDE = 16 / 9;
/** Tiles are not narrower than this; a picture of 16:9 loses a quarter of its width at most. */
const LANDSCAPE_LEAST = 4 / 3;
/** On an upright phone; 44 % of a wide picture are cut away then, which leaves the face. */
const PORTRAIT_LEAST = 1;
/** Below this width, px, a first name is cut off. */
const NAME_LEAST = 110;

/**
 * Columns and rows that make 16:9 tiles (on upright screens: tiles between 16:9 and square) as large as possible; the
 * tiles then grow into what is left of their cells. A row that is not full stands in the middle.
 */
export function gridRects(count: number, width: number, height: number, gap: number): Rect[] {
  if (count <= 0 || width <= 0 || height <= 0) return [];
  const upright = width < height;
  let columns = 1;
  let best = 0;
  for (let candidate = 1; candidate <= count; candidate += 1) {
    const cell = cellOf(candidate, count, width, height, gap);
    const tile = shape(cell.width, cell.height, upright ? PORTRAIT_LEAST : WIDE);
    // Upright screens cut pictures at the sides, so there height counts twice: it is what makes faces large. But names want room, too.
    const worth = tile.width * tile.height * (upright ? tile.height * (tile.width < NAME_LEAST ? 0.5 : 1) : 1);
    // A layout that only equals one with fewer columns does not replace it.
    if (worth > best * 1.0001) {
      best = worth;
      columns = candidate;
    }
  }
  const cell = cellOf(columns, count, width, height, gap);
  const tile = shape(cell.width, cell.height, upright ? PORTRAIT_LEAST : LANDSCAPE_LEAST);
  const rows = Math.ceil(count / columns);
  const top = (height - rows * tile.height - (rows - 1) * gap) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (width - inRow * tile.width - (inRow - 1) * gap) / 2;
    return {
      x: Math.round(left + (index % columns) * (tile.width + gap)),
      y: Math.round(top + row * (tile.height + gap)),
      width: Math.floor(tile.width),
      height: Math.floor(tile.height),
    };
  });
}

function cellOf(columns: number, count: number, width: number, height: number, gap: number): { width: number; height: number } {
  const rows = Math.ceil(count / columns);
  return { width: (width - gap * (columns - 1)) / columns, height: (height - gap * (rows - 1)) / rows };
}

function shape(width: number, height: number, least: number): { width: number; height: number } {
  const ratio = width / height;
  if (ratio > WIDE) return { width: height * WIDE, height };
  if (ratio < least) return { width, height: width / least };
  return { width, height };
}

/** One large tile, the others in a strip beside it (or below, on upright screens). */
export interface Spotlight {
  main: Rect;
  strip: Rect[];
  /** How many of the others have no place; the last rectangle of the strip then says so. */
  left: number;
}

/**
 * Lays out one large tile and `others` small ones. `screen`: width by height of a shared screen in the large one, which is shown whole and so takes
 * all the space it can use.
 */
export function spotlightRects(others: number, width: number, height: number, gap: number, screen?: number): Spotlight {
  const fill = screen !== undefined;
  if (others <= 0) return { main: centred(0, 0, width, height, fill), strip: [], left: 0 };
  const beside = width > height * 1.1;
  // Below the large tile the strip takes what a square one leaves, or what a screen cannot use.
  const size = beside ? Math.min(300, Math.max(150, width * 0.21)) : Math.max(84, height * 0.2, height - gap - (fill ? Math.max(height * 0.4, width / screen) : width));
  const area = beside ? { x: width - size, y: 0, width: size, height } : { x: 0, y: height - size, width, height: size };
  const least = beside ? 116 : 96;
  let shown = others;
  let strip = gridRects(shown, area.width, area.height, gap);
  while (shown > 1 && (strip[0]?.width ?? 0) < least) {
    shown -= 1;
    strip = gridRects(shown, area.width, area.height, gap);
  }
  // What the strip does not need goes to the large tile.
  const left = Math.min(...strip.map(({ x }) => x));
  const top = Math.min(...strip.map(({ y }) => y));
  const shift = beside ? { x: area.x + left, y: 0 } : { x: 0, y: area.y + (fill ? top : 0) };
  const main = beside ? centred(0, 0, width - size + 2 * left - gap, height, fill) : centred(0, 0, width, shift.y - gap, fill);
  return {
    main,
    strip: strip.map((rect) => ({ ...rect, x: rect.x + Math.round(shift.x), y: rect.y + Math.round(shift.y) })),
    left: shown < others ? others - shown + 1 : 0,
  };
}

/**
 * Lays out whoever talks and `others` smaller ones so that all stay in sight: a grid in which the talker's tile, at the top on the left, is two or
 * more cells wide and high. With more cells the talker is larger and the others are smaller; what counts is the room that is used, but beyond
 * half of the stage a face gains nothing.
 */
export function speakerRects(others: number, width: number, height: number, gap: number): { main: Rect; others: Rect[] } {
  const upright = width < height;
  const least = upright ? PORTRAIT_LEAST : LANDSCAPE_LEAST;
  let best = { worth: 0, span: 2, columns: 3, rows: 2, tile: { width: 0, height: 0 } };
  for (let span = 2; span <= 5; span += 1) {
    for (let columns = span; columns <= others + span; columns += 1) {
      const rows = Math.max(span, Math.ceil((others + span * span) / columns));
      const tile = shape((width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows, least);
      const main = span * span * tile.width * tile.height;
      const worth = others * tile.width * tile.height * (tile.width < NAME_LEAST ? 0.5 : 1) + Math.min(main, (width * height) / 2);
      if (worth > best.worth * 1.0001) best = { worth, span, columns, rows, tile };
    }
  }
  const { span, columns, rows, tile } = best;
  const step = { x: tile.width + gap, y: tile.height + gap };
  const origin = { x: (width - columns * step.x + gap) / 2, y: (height - rows * step.y + gap) / 2 };
  const at = (column: number, row: number, size: number): Rect => ({
    x: Math.round(origin.x + column * step.x),
    y: Math.round(origin.y + row * step.y),
    width: Math.floor(size * step.x - gap),
    height: Math.floor(size * step.y - gap),
  });
  const beside = span * (columns - span);
  return {
    main: at(0, 0, span),
    others: Array.from({ length: others }, (_, index) => {
      // A row that is not full stands in the middle.
      if (index < beside) {
        const side = columns - span;
        const row = Math.floor(index / side);
        const inRow = Math.min(side, others - row * side);
        return at(span + (side - inRow) / 2 + (index % side), row, 1);
      }
      const below = index - beside;
      const row = Math.floor(below / columns);
      const inRow = Math.min(columns, others - beside - row * columns);
      return at((columns - inRow) / 2 + (below % columns), span + row, 1);
    }),
  };
}

function centred(x: number, y: number, width: number, height: number, fill: boolean): Rect {
  const size = fill ? { width, height } : shape(width, height, width >= height ? LANDSCAPE_LEAST : PORTRAIT_LEAST);
  return {
    x: Math.round(x + (width - size.width) / 2),
    y: Math.round(y + (height - size.height) / 2),
    width: Math.floor(size.width),
    height: Math.floor(size.height),
  };
}

/**
 * Two people: the other one large, oneself small in a corner of that picture. On an upright screen only if the other
 * one's picture is upright (`aspect` < 1) too; two wide pictures use it better one above the other.
 */
export function pairRects(width: number, height: number, gap: number, aspect: number, ownAspect: number): { main: Rect; corner: Rect; floating: boolean } {
  const upright = width < height;
  if (upright && aspect >= 1) {
    const [main, corner] = gridRects(2, width, height, gap);
    if (main && corner) return { main, corner, floating: false };
  }
  const main = centred(0, 0, width, height, upright);
  const small = upright ? Math.min(132, width * 0.32) : Math.min(260, Math.max(150, width * 0.19));
  const corner = { width: Math.floor(small), height: Math.floor(upright && ownAspect < 1 ? small * 1.25 : small / WIDE) };
  const margin = 12;
  return {
    main,
    floating: true,
    corner: {
      ...corner,
      x: Math.min(main.x + main.width, width) - corner.width - margin,
      y: Math.min(main.y + main.height, height) - corner.height - margin,
    },
  };
}
