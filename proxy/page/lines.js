// The lines of the picture: where they leave and arrive, and how they run so that none passes
// behind a node that it has nothing to do with. Pure.

export const NODE = { width: 172, height: 42 };
export const GAP = { column: 88, row: 14, band: 20, pad: 12, head: 26 };
export const COLUMN = NODE.width + GAP.column;
const HEAD = 7;     // the arrow's length
const CLEAR = 4;    // between a line and a node that it passes
const APART = 1.5;  // half of what lies between two lines that pass there
const REACH = 140, TURN = 44;  // how far a curve goes out: onwards, and where it turns back

// Ways through columns, past their nodes and past each other.
class Lanes {
  constructor(nodes) {
    this.columns = new Map();
    for (const { column, y } of nodes) this.block(column, y - CLEAR, y + NODE.height + CLEAR);
  }
  block(column, top, bottom) {
    const list = this.columns.get(column) ?? [];
    const place = list.findIndex((one) => one.top > top);
    list.splice(place < 0 ? list.length : place, 0, { top, bottom });
    this.columns.set(column, list);
  }
  // The height that is free and nearest to the one that is wished.
  take(column, wish) {
    const list = this.columns.get(column) ?? [];
    let down = wish, up = wish;
    for (const { top, bottom } of list) if (down > top && down < bottom) down = bottom;
    // Those that end lowest are met first on the way up.
    for (const { top, bottom } of [...list].sort((a, b) => b.bottom - a.bottom)) {
      if (up > top && up < bottom) up = top;
    }
    const y = up > 0 && wish - up <= down - wish ? up : down;
    this.block(column, y - APART, y + APART);
    return y;
  }
}

// From point to point; `way` is 1 where the line runs to the right and -1 to the left.
function bend(from, to) {
  const turns = from.way !== to.way;
  const most = Math.abs(to.x - from.x) / 2;
  const reach = turns ? TURN : Math.min(REACH, most);
  const a = from.x + from.way * reach, b = to.x - to.way * reach;
  const at = (t) => {
    const u = 1 - t, along = (p, q, r, s) =>
      u * u * u * p + 3 * u * u * t * q + 3 * u * t * t * r + t * t * t * s;
    return { x: along(from.x, a, b, to.x), y: along(from.y, from.y, to.y, to.y) };
  };
  return { path: `C${a} ${from.y} ${b} ${to.y} ${to.x} ${to.y}`, at };
}

function run(from, to, lanes, number) {
  const start = { x: from.x + NODE.width, y: from.out, way: 1 };
  const end = { x: to.x - HEAD, y: to.in, way: 1 };
  const forward = to.column > from.column, way = forward ? 1 : -1;
  const points = [start];
  const first = forward ? from.column + 1 : from.column;
  const last = forward ? to.column - 1 : to.column;
  for (let column = first; (last - column) * way >= 0; column += way) {
    const part = (column - from.column) / (to.column - from.column || 1);
    const y = lanes.take(column, from.out + (to.in - from.out) * (forward ? part : 0.5));
    const left = from.x + (column - from.column) * COLUMN, right = left + NODE.width;
    points.push({ x: forward ? left : right, y, way }, { x: forward ? right : left, y, way });
  }
  points.push(end);
  const bends = points.slice(1).map((point, at) => bend(points[at], point));
  // Words stand where the line crosses the room between two columns.
  const label = bends.length === 1 ? bends[0].at(0.4 + 0.1 * (number % 3)) : bends[0].at(0.5);
  return { path: `M${start.x} ${start.y}${bends.map((one) => one.path).join("")}`, end, label,
    points };
}

// They leave and arrive side by side, in the order of the other ends.
function spread(list, other, set) {
  const step = list.length > 1 ? Math.min(7, (NODE.height - 14) / (list.length - 1)) : 0;
  [...list].sort((a, b) => other(a).y - other(b).y)
    .forEach((edge, at) => set(edge, (at - (list.length - 1) / 2) * step));
}

// edges: [{from, to}] of keys; nodes: Map key -> {x, y, column}
// -> [{path, end, label, points}] in the order of `edges`: the points are on the path.
export function lines(edges, nodes) {
  const ends = edges.map(({ from, to }) => ({
    from: { ...nodes.get(from) }, to: { ...nodes.get(to) }, source: from, target: to,
  }));
  const byKey = (key) => ends.reduce((map, end) =>
    map.set(end[key], [...(map.get(end[key]) ?? []), end]), new Map());
  for (const list of byKey("source").values()) {
    spread(list, (end) => end.to, (end, by) => {
      end.from.out = end.from.y + NODE.height / 2 + by;
    });
  }
  for (const list of byKey("target").values()) {
    spread(list, (end) => end.from, (end, by) => {
      end.to.in = end.to.y + NODE.height / 2 + by;
    });
  }
  const lanes = new Lanes(nodes.values());
  return ends.map((end, number) => run(end.from, end.to, lanes, number));
}

// How far lines that turn back reach beyond their nodes.
export const OVERHANG = Math.ceil(TURN * 0.75) + HEAD;
