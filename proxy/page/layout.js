// Where the parts of the picture stand. Pure: knows no page and no clock.
//
// Bands (a workflow, an owner's services) stand as wide as they have columns. Within a band, and
// among bands, whoever calls stands left of whom they call; what goes round in a circle is cut at
// one place. Bands of the same columns stand below each other, near those they speak with.

import { COLUMN, GAP, NODE, OVERHANG, lines } from "./lines.js";

const MAX_LOOSE_COLUMNS = 4;
const WRAP = 9;  // bands below each other

// Key -> how many steps of `edges` ([from, to]) lead to it at most, `weight` long each. Those that
// nobody calls stand right before the first whom they call.
function ranks(keys, edges, weight) {
  const out = new Map(keys.map((key) => [key, []]));
  for (const [from, to] of edges) if (from !== to) out.get(from).push(to);
  const order = [], state = new Map(), kept = new Map(keys.map((key) => [key, []]));
  const visit = (root) => {
    const path = [[root, 0]];
    state.set(root, 1);
    while (path.length) {
      const top = path[path.length - 1];
      const next = out.get(top[0])[top[1]++];
      if (next === undefined) {
        state.set(top[0], 2);
        order.push(top[0]);
        path.pop();
      } else if (state.get(next) !== 1) {  // else the circle closes: cut here
        kept.get(top[0]).push(next);
        if (!state.has(next)) {
          state.set(next, 1);
          path.push([next, 0]);
        }
      }
    }
  };
  const called = new Set(edges.filter(([from, to]) => from !== to).map(([, to]) => to));
  for (const key of keys) if (!called.has(key) && !state.has(key)) visit(key);
  for (const key of keys) if (!state.has(key)) visit(key);
  order.reverse();
  const rank = new Map(keys.map((key) => [key, 0]));
  for (const key of order) {
    for (const next of kept.get(key)) {
      rank.set(next, Math.max(rank.get(next), rank.get(key) + weight(key)));
    }
  }
  for (const key of order) {
    const next = kept.get(key);
    if (called.has(key) || next.length === 0) continue;
    rank.set(key, Math.min(...next.map((to) => rank.get(to))) - weight(key));
  }
  return rank;
}

const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;

// Columns of keys, from the top: each near the mean of its neighbours in the columns before.
function arrange(keys, edges) {
  const tied = new Set(edges.flatMap(([from, to]) => (from === to ? [] : [from, to])));
  const knit = keys.filter((key) => tied.has(key)), loose = keys.filter((key) => !tied.has(key));
  const rank = ranks(knit, edges, () => 1);
  const columns = [];
  for (const key of knit) (columns[rank.get(key)] ??= []).push(key);
  const near = new Map(keys.map((key) => [key, []]));
  for (const [from, to] of edges) {
    near.get(from).push(to);
    near.get(to).push(from);
  }
  const place = new Map();
  const number = (column) => column.forEach((key, at) => place.set(key, at - column.length / 2));
  columns.forEach(number);
  for (const sweep of [columns, [...columns].reverse(), columns]) {
    for (const column of sweep) {
      const wish = new Map(column.map((key) =>
        [key, mean(near.get(key).map((to) => place.get(to)))]));
      column.sort((a, b) => wish.get(a) - wish.get(b));
      number(column);
    }
  }
  const wanted = Math.min(MAX_LOOSE_COLUMNS, Math.ceil(loose.length / 4));
  while (columns.length < Math.max(1, wanted)) columns.push([]);
  for (const key of loose) {
    columns.reduce((a, b) => (b.length < a.length ? b : a)).push(key);
  }
  return columns;
}

// Several times: at first bands stand as they are wanted, then near those that they speak with. The
// one with the shortest lines is taken.
function pack(bands, edges) {
  const friends = new Map(bands.map((band) => [band.key, []]));
  for (const [from, to] of edges) {
    friends.get(from).push(to);
    friends.get(to).push(from);
  }
  const middle = new Map();
  const wish = (band) => {
    const known = friends.get(band.key).filter((key) => middle.has(key));
    return known.length ? mean(known.map((key) => middle.get(key))) : null;
  };
  let best = null;
  for (let round = 0; round < 5; ++round) {
    const wishes = new Map(bands.map((band) => [band.key, wish(band) ?? Infinity]));
    const order = [...bands].sort((a, b) => a.first - b.first
      || (round === 0 ? 0 : wishes.get(a.key) - wishes.get(b.key) || 0));
    const skyline = [], tops = new Map();
    for (const band of order) {
      const span = Array.from({ length: band.columns.length }, (_, at) => band.first + at);
      const least = Math.max(...span.map((column) => skyline[column] ?? 0));
      const near = band.first > 0 ? (wish(band) ?? 0) - band.height / 2 : 0;
      const top = Math.max(least, Math.round(near));
      tops.set(band.key, top);
      middle.set(band.key, top + band.height / 2);
      for (const column of span) skyline[column] = top + band.height + GAP.band;
    }
    const lines = edges.reduce((sum, [from, to]) =>
      sum + Math.abs(middle.get(from) - middle.get(to)), 0);
    const length = lines + Math.max(...skyline.filter(Boolean)) / 10;
    if (best === null || length < best.length) best = { length, tops };
  }
  const top = Math.min(...best.tops.values());
  for (const band of bands) band.y = best.tops.get(band.key) - top;
}

// Many narrow bands of one column stand in several, so that they can be seen together; what stands
// right of them moves on.
function wrap(bands) {
  const narrow = new Map();
  for (const band of bands) {
    if (band.columns.length > 1) continue;
    narrow.set(band.first, [...(narrow.get(band.first) ?? []), band]);
  }
  let moved = 0;
  for (const first of [...narrow.keys()].sort((a, b) => a - b)) {
    const list = narrow.get(first), columns = Math.min(4, Math.ceil(list.length / WRAP));
    if (columns < 2) continue;
    const here = first + moved;
    for (const band of bands) if (band.first > here) band.first += columns - 1;
    const each = Math.ceil(list.length / columns);
    list.forEach((band, at) => { band.first += Math.floor(at / each); });
    moved += columns - 1;
  }
}

// bands: [{key, folded, nodes: [key]}] in the order in which they are wanted; edges: [{from, to,
// open}] of nodes: those that are not open are drawn, but move nobody who stands somewhere without
// them (`isOthers` says of a band's key that its nodes do not).
// -> {left, right, height, bands: Map key -> {x, y, width, height}, nodes: Map key -> {x, y, column,
//     row}, edges: [{path, end, label}] in the order of `edges`}
export function layout(bands, edges, isOthers) {
  const bandOf = new Map(bands.flatMap((band) => band.nodes.map((key) => [key, band.key])));
  const inner = new Map(bands.map((band) => [band.key, []]));
  const seen = new Map();
  for (const { from, to, open } of edges) {
    const a = bandOf.get(from), b = bandOf.get(to);
    if (!open && !isOthers(a) && !isOthers(b)) continue;
    if (a === b) inner.get(a).push([from, to]);
    else seen.set(`${a}\n${b}`, [a, b]);
  }
  const between = [...seen.values()];
  const drawn = bands.map((band) => ({
    key: band.key, head: band.folded ? 0 : GAP.head,
    columns: arrange(band.nodes, inner.get(band.key)),
  }));
  const wide = new Map(drawn.map((band) => [band.key, band.columns.length]));
  const first = ranks(drawn.map((band) => band.key), between, (key) => wide.get(key));
  const least = Math.min(0, ...first.values());
  for (const band of drawn) {
    const most = Math.max(...band.columns.map((column) => column.length));
    band.first = first.get(band.key) - least;
    band.height = band.head + GAP.pad + most * (NODE.height + GAP.row);
  }
  wrap(drawn);
  if (drawn.length > 0) pack(drawn, between);

  const result = { left: 0, right: 0, height: 0, bands: new Map(), nodes: new Map(), edges: [] };
  for (const band of drawn) {
    const x = band.first * COLUMN, width = band.columns.length * COLUMN - GAP.column;
    result.bands.set(band.key, { x, y: band.y, width: width + 2 * GAP.pad, height: band.height });
    band.columns.forEach((column, at) => column.forEach((key, row) => {
      const step = NODE.height + GAP.row, above = GAP.pad + (band.head ? 0 : GAP.row);
      const slack = band.height - band.head - GAP.pad - column.length * step;
      const y = band.y + band.head + (above + slack) / 2 + row * step;
      result.nodes.set(key, { x: x + GAP.pad + at * COLUMN, y, column: band.first + at, row });
    }));
    result.right = Math.max(result.right, x + width + 2 * GAP.pad);
    result.height = Math.max(result.height, band.y + band.height);
  }
  result.edges = lines(edges, result.nodes);
  for (const { points } of result.edges) {
    for (const { x, y } of points) {
      result.left = Math.min(result.left, x - OVERHANG);
      result.right = Math.max(result.right, x + OVERHANG);
      result.height = Math.max(result.height, y + GAP.row);
    }
  }
  return result;
}
