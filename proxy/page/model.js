// What the server tells, as what is drawn: containers of one service are one node, steps that are
// alike are one, and a band that is folded is one. Pure.

const ALIKE = 3;  // so many nameless ones with the same callers and called become one

export const STATES = {
  WAITING: "waiting to run", ATTACHED: "starting", READY: "ready", DRAINING: "ending",
  ENDED: "ended",
};

export function rateText(bytes) {
  if (bytes <= 0) return "";
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let at = 0, value = bytes;
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1000;
    ++at;
  }
  const digits = at > 0 && value < 9.95 ? 1 : 0;
  return `${Math.max(value, at === 0 ? 1 : 0).toFixed(digits)} ${units[at]}`;
}

export function ageText(then, now) {
  const s = Math.max(0, Math.round((now - then) / 1000));
  if (s < 5) return "now";
  if (s < 90) return `${s} s ago`;
  if (s < 90 * 60) return `${Math.round(s / 60)} min ago`;
  if (s < 36 * 3600) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

// The words that the filter looks through.
export function wordsOf(workload) {
  return [workload.id, workload.service, workload.owner, workload.workflow, workload.node,
    ...workload.links.map((link) => link.label)].join("\n").toLowerCase();
}

// The best of its containers'.
function stateOf(members) {
  for (const state of ["READY", "ATTACHED", "DRAINING", "WAITING"]) {
    if (members.some((one) => one.state === state)) return state;
  }
  return "ENDED";
}

function bandOf(workload, state) {
  const { owner, workflow } = workload;
  if (workflow) return { key: `workflow ${workflow}`, label: `Workflow ${workflow}` };
  const mine = owner === state.you.owner;
  return { key: `owner ${owner}`, label: mine ? "Your services" : `Services of ${owner}` };
}

function otherNode(key, other) {
  const kinds = { service: "a service", workload: "a container", owner: "another owner" };
  return {
    key: `other ${key}`, label: other?.label || key, sub: kinds[other?.kind] ?? "elsewhere",
    kind: "other", members: [], state: "", owner: other?.kind === "owner" ? other.label : "",
  };
}

// Workload -> the node that it belongs to.
function unitsOf(state) {
  const unit = new Map();
  const serviceOf = (w) => ["service", w.owner, w.workflow, w.scope, w.service].join("\n");
  for (const w of state.workloads) unit.set(w.id, w.service ? serviceOf(w) : `id ${w.id}`);
  const out = new Map(), into = new Map();
  for (const edge of state.edges) {
    const from = unit.get(edge.from) ?? edge.from, to = unit.get(edge.to) ?? edge.to;
    out.set(from, [...(out.get(from) ?? []), to]);
    into.set(to, [...(into.get(to) ?? []), from]);
  }
  const alike = new Map();
  for (const w of state.workloads) {
    if (w.service || w.links.length) continue;
    const side = (map) => [...new Set(map.get(`id ${w.id}`) ?? [])].sort().join("\r");
    const key = [w.owner, w.workflow, w.state, side(out), side(into)].join("\n");
    alike.set(key, [...(alike.get(key) ?? []), w]);
  }
  for (const same of alike.values()) {
    if (same.length < ALIKE) continue;
    for (const w of same) unit.set(w.id, `alike ${same[0].id}`);
  }
  return unit;
}

function nodeOf(key, members) {
  const one = members[0], alike = key.startsWith("alike ");
  const count = members.length;
  const state = stateOf(members);
  const ready = members.filter((w) => w.state === "READY").length;
  let sub = STATES[state];
  if (count > 1) sub = `${count} ${alike ? "alike" : "containers"}, ${ready} ready`;
  const kind = alike || count > 1 ? "many" : "one";
  return { key, label: one.service || one.id, sub, kind, members, state, owner: one.owner };
}

function foldedNode(band) {
  const members = band.nodes.flatMap((node) => node.members);
  const ready = members.filter((w) => w.state === "READY").length;
  return {
    key: band.key, label: band.label, sub: `${members.length} containers, ${ready} ready`,
    kind: "folded", members, state: stateOf(members), owner: members[0]?.owner ?? "",
  };
}

// -> {bands: [{key, label, folded, size, nodes: [node]}], nodes: Map key -> node, edges: [{key,
//     from, to, parts, refusals, bytes, packets, refused, open}]}
export function model(state, isFolded) {
  const unit = unitsOf(state), bands = new Map(), nodes = new Map(), place = new Map();
  const groups = new Map();
  for (const w of state.workloads) {
    groups.set(unit.get(w.id), [...(groups.get(unit.get(w.id)) ?? []), w]);
  }
  for (const [key, members] of groups) {
    const { key: name, label } = bandOf(members[0], state);
    if (!bands.has(name)) bands.set(name, { key: name, label, nodes: [], folded: isFolded(name) });
    bands.get(name).nodes.push(nodeOf(key, members));
    for (const w of members) place.set(w.id, key);
  }
  for (const band of bands.values()) {
    band.size = band.nodes.length;
    if (!band.folded) continue;
    for (const node of band.nodes) for (const w of node.members) place.set(w.id, band.key);
    band.nodes = [foldedNode(band)];
  }
  for (const band of bands.values()) for (const node of band.nodes) nodes.set(node.key, node);

  const others = new Map(state.others.map((other) => [other.key, other])), edges = new Map();
  const calls = new Set([...state.edges, ...state.refusals].map((edge) => edge.from));
  const nodeFor = (end) => {
    if (place.has(end)) return place.get(end);
    const node = otherNode(end, others.get(end));
    // Who calls from elsewhere stands left, who is called there right.
    const name = calls.has(end) ? "others calling" : "others called";
    if (!bands.has(name)) {
      bands.set(name, { key: name, label: "Not yours", nodes: [], size: 0, folded: false });
    }
    bands.get(name).nodes.push(node);
    nodes.set(node.key, node);
    place.set(end, node.key);
    return node.key;
  };
  const edgeFor = (part) => {
    const from = nodeFor(part.from), to = nodeFor(part.to), key = `${from}\r${to}`;
    if (!edges.has(key)) {
      edges.set(key, {
        key, from, to, parts: [], refusals: [], bytes: 0, packets: 0, refused: 0, open: false,
      });
    }
    return edges.get(key);
  };
  for (const part of state.edges) {
    const edge = edgeFor(part);
    edge.parts.push(part);
    edge.bytes += part.bytes_s;
    edge.packets += part.packets_s;
    edge.open ||= part.open;
  }
  for (const refusal of state.refusals) {
    const edge = edgeFor(refusal);
    edge.refusals.push(refusal);
    edge.refused += refusal.count;
  }
  // Replicas that speak with each other stand in the table alone.
  const between = [...edges.values()].filter((edge) => edge.from !== edge.to);
  return { bands: [...bands.values()], nodes, edges: between };
}
