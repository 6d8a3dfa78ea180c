// The picture: bands, nodes and lines as elements, and how one walks along them.
//
// Keyboard: one stop of the Tab key. Up and Down go through the nodes of a column, or through the
// lines of a node; Right and Left go from a node to its lines and on to the other end.

import { layout } from "./layout.js";
import { NODE } from "./lines.js";
import { STATES, model, rateText } from "./model.js";
import { keep, setAttribute, setText, svg } from "./dom.js";

const MANY_NODES = 60;  // beyond it bands begin folded
const LABEL_CHARS = 22;
const LEAST_SCALE = 0.75;

const isOthers = (key) => key.startsWith("others ");
const shorten = (text, most = LABEL_CHARS) =>
  (text.length <= most ? text : `${text.slice(0, most - 9)}…${text.slice(-8)}`);

export class Picture {
  // `choose` is told what somebody wants to know of: {node} or {edge}, or null.
  constructor(root, choose) {
    this.root = root;
    this.choose = choose;
    this.folds = new Map();  // band -> as somebody wanted it
    this.current = null;     // key of the element that Tab comes to
    this.chosen = null;      // key
    this.origin = null;      // of a line: the node from which it was reached
    this.layers = ["bands", "edges", "nodes", "folds"].map((name) => svg("g", { class: name }));
    root.append(...this.layers);
    root.addEventListener("keydown", (event) => this.onKey(event));
    // Not of the picture itself: Chromium lets Tab stop at an SVG that listens to this.
    root.parentElement.addEventListener("focusin", (event) => {
      const target = event.target.closest("[data-key]");
      if (target) this.rove(target.dataset.key);
    });
  }

  show(state, matches) {
    this.state = state;
    this.matches = matches;
    this.draw();
  }

  isFolded(key) {
    const many = new Set(this.state.workloads.map((w) => w.service || w.id)).size > MANY_NODES;
    return this.folds.get(key) ?? many;
  }
  toggle(key) {
    this.folds.set(key, !this.isFolded(key));
    this.draw();
  }
  foldAll(folded) {
    for (const band of this.model.bands) this.folds.set(band.key, folded);
    this.draw();
  }
  get allFolded() {
    return this.model.bands.every((band) => band.folded || isOthers(band.key));
  }

  draw() {
    this.model = model(this.state, (key) => this.isFolded(key));
    const { bands, edges, nodes } = this.model;
    const wanted = bands.map(({ key, folded, nodes: inside }) =>
      ({ key, folded, nodes: inside.map((node) => node.key) }));
    this.at = layout(wanted, edges, isOthers);
    const { left } = this.at, width = Math.max(this.at.right - left, NODE.width);
    const height = Math.max(this.at.height, NODE.height);
    setAttribute(this.root, "viewBox", `${left - 2} -2 ${width + 4} ${height + 4}`);
    // As wide as there is room, as long as it can be read.
    const room = (this.root.parentElement.clientWidth - 20) / (width + 4);
    const scale = Math.max(LEAST_SCALE, Math.min(1, room));
    setAttribute(this.root, "width", Math.round((width + 4) * scale));
    setAttribute(this.root, "height", Math.round((height + 4) * scale));
    const [bandLayer, edgeLayer, nodeLayer, foldLayer] = this.layers;
    keep(bandLayer, bands, (band) => `band ${band.key}`, () => svg("rect", { rx: 10 }),
      (rect, band) => {
        const at = this.at.bands.get(band.key);
        for (const name of ["x", "y", "width", "height"]) setAttribute(rect, name, at[name]);
      });
    keep(foldLayer, bands, (band) => `fold ${band.key}`, (band) => this.makeFold(band),
      (g, band) => this.updateFold(g, band));
    const numbered = edges.map((edge, number) => ({ ...edge, at: this.at.edges[number] }));
    this.placeLabels(numbered);
    keep(edgeLayer, numbered, (edge) => edge.key, (edge) => this.makeEdge(edge),
      (g, edge) => this.updateEdge(g, edge));
    const standing = [...nodes.values()].filter((node) => this.at.nodes.has(node.key));
    keep(nodeLayer, standing, (node) => node.key, (node) => this.makeNode(node),
      (g, node) => this.updateNode(g, node));
    this.elements = new Map([...this.root.querySelectorAll("g[data-key]")].map((one) =>
      [one.dataset.key, one]));
    if (!this.elements.has(this.current)) {
      this.current = this.topLeft([...this.at.nodes.keys()]);
    }
    this.rove(this.current);
    this.mark(this.elements.has(this.chosen) ? this.chosen : null);
  }

  // Where two would lie upon each other the more important one stays; the details have both.
  placeLabels(edges) {
    const taken = [];
    for (const edge of [...edges].sort((a, b) => b.refused - a.refused || b.bytes - a.bytes)) {
      const { x, y } = edge.at.label;
      const near = (other) => Math.abs(other.x - x) < 90 && Math.abs(other.y - y) < 15;
      edge.labelled = !taken.some(near);
      if (edge.labelled && (edge.refused || edge.bytes)) taken.push({ x, y });
    }
  }

  // --- elements ---

  // A band's name, which folds it; of one that is folded a mark on its node.
  makeFold(band) {
    const g = svg("g", { tabindex: "-1" }, svg("rect", { height: 24, rx: 6 }),
      svg("text", { y: 16 }));
    if (isOthers(band.key)) return g;
    g.setAttribute("role", "button");
    g.addEventListener("click", () => this.toggle(band.key));
    return g;
  }
  updateFold(g, band) {
    const at = this.at.bands.get(band.key), [rect, text] = g.children;
    const x = band.folded ? at.width - 44 : 6, y = band.folded ? 22 : 3;
    setAttribute(g, "transform", `translate(${at.x + x} ${at.y + y})`);
    setAttribute(g, "class", isOthers(band.key) ? "fold fixed" : "fold");
    setAttribute(rect, "width", band.folded ? 24 : at.width - 12);
    setAttribute(text, "x", band.folded ? 6 : 8);
    const sign = isOthers(band.key) ? "" : "▾ ";
    const most = Math.floor((at.width - 36) / 7);
    setText(text, band.folded ? "▸" : sign + shorten(band.label, most));
    if (isOthers(band.key)) return;
    setAttribute(g, "aria-expanded", !band.folded);
    setAttribute(g, "aria-label", `${band.label}, ${band.size} services`);
  }

  makeNode(node) {
    const many = node.kind === "many" || node.kind === "folded";
    const size = { width: NODE.width, height: NODE.height, rx: 8 };
    return svg("g", { tabindex: "-1", role: "button", onclick: () => this.pick(node.key) },
      many ? svg("rect", { ...size, x: 4, y: 4, class: "behind" }) : null,
      svg("rect", size), svg("circle", { class: "dot", cx: 16, cy: 21, r: 5 }), svg("title"),
      svg("text", { x: 30, y: 18 }), svg("text", { x: 30, y: 33, class: "sub" }));
  }
  updateNode(g, node) {
    const at = this.at.nodes.get(node.key);
    setAttribute(g, "transform", `translate(${at.x} ${at.y})`);
    const dim = this.matches && node.members.length > 0
      && !node.members.some((w) => this.matches.has(w.id));
    setAttribute(g, "class", `node ${node.kind} ${node.state.toLowerCase()}${dim ? " dim" : ""}`);
    const [label, sub] = g.querySelectorAll("text"), folded = node.kind === "folded";
    setText(label, shorten(node.label, folded ? LABEL_CHARS - 4 : LABEL_CHARS));
    setText(sub, shorten(node.sub, LABEL_CHARS + 2));
    setText(g.querySelector("title"), node.label);
    const { calls, calledBy } = this.linesOf(node.key), lines = [...calls, ...calledBy];
    const refused = lines.filter((edge) => edge.refused > 0).length;
    const words = [node.label, node.kind === "one" ? STATES[node.state] : node.sub,
      `${lines.length} connection${lines.length === 1 ? "" : "s"}`, refused ? `${refused} refused` : ""];
    setAttribute(g, "aria-label", words.filter(Boolean).join(", "));
  }

  makeEdge(edge) {
    return svg("g", { tabindex: "-1", role: "button", onclick: () => this.pick(edge.key) },
      ...["reach", "line", "flow"].map((name) => svg("path", { class: name })),
      svg("path", { class: "head-mark", d: "M-7 -5 3 0 -7 5Z" }), svg("text"));
  }
  updateEdge(g, edge) {
    const { path, end, label } = edge.at;
    const live = edge.bytes > 0, refused = edge.refused > 0;
    const kind = refused ? " refused" : live ? " live" : edge.open ? "" : " closed";
    setAttribute(g, "class", `edge${kind}`);
    const [reach, line, flow, head] = g.querySelectorAll("path");
    for (const one of [reach, line, flow]) setAttribute(one, "d", path);
    const width = live ? Math.min(6, 2 + Math.log10(1 + edge.bytes / 1000)) : 1.5;
    line.style.strokeWidth = `${refused ? Math.max(2, width) : width}px`;
    setAttribute(flow, "visibility", live ? "visible" : "hidden");
    setAttribute(head, "transform", `translate(${end.x + 4} ${end.y})`);
    const words = [live ? rateText(edge.bytes) : "", refused ? `${edge.refused} refused` : ""];
    const text = g.querySelector("text");
    setText(text, edge.labelled ? words.filter(Boolean).join(", ") : "");
    setAttribute(text, "x", label.x);
    setAttribute(text, "y", label.y - 5);
    const { nodes } = this.model;
    const about = words.filter(Boolean).join(", ") || (edge.open ? "no traffic now" : "not open");
    const ends = `${nodes.get(edge.from).label} to ${nodes.get(edge.to).label}`;
    setAttribute(g, "aria-label", `${ends}: ${about}`);
  }

  // --- choosing and walking ---

  // One element is in the order of Tab; the others are reached from it.
  rove(key) {
    this.elements?.get(this.current)?.setAttribute("tabindex", "-1");
    this.current = key;
    this.elements?.get(key)?.setAttribute("tabindex", "0");
  }
  focus(key) {
    const target = this.elements.get(key);
    if (!target) return;
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  mark(key) {
    this.chosen = key;
    for (const [name, one] of this.elements) one.classList.toggle("chosen", name === key);
  }
  pick(key) {
    this.mark(key);
    const node = this.model.nodes.get(key);
    const edge = this.model.edges.find((one) => one.key === key);
    this.choose(node ? { node } : edge ? { edge } : null);
  }
  linesOf(key) {
    const calls = this.model.edges.filter((edge) => edge.from === key);
    return { calls, calledBy: this.model.edges.filter((edge) => edge.to === key) };
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const key = this.current;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (key?.startsWith("fold ")) {
        this.toggle(key.slice(5));
        this.focus(key);
      } else {
        this.pick(key);
      }
      return;
    }
    const steps = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const edge = this.model.edges.find((one) => one.key === key);
    const next = key?.startsWith("fold ") ? this.fromFold(key.slice(5), step)
      : edge ? this.fromEdge(edge, step) : this.fromNode(key, step);
    if (next) this.focus(next);
  }
  topLeft(keys) {
    const at = (key) => this.at.nodes.get(key);
    return keys.sort((a, b) => at(a).column - at(b).column || at(a).y - at(b).y)[0] ?? null;
  }
  fromFold(key, step) {
    const band = this.model.bands.find((one) => one.key === key);
    if (!band || (step !== "down" && step !== "right")) return null;
    return this.topLeft(band.nodes.map((node) => node.key));
  }
  fromNode(key, step) {
    const here = this.at.nodes.get(key);
    if (!here) return null;
    if (step === "left" || step === "right") {
      const { calls, calledBy } = this.linesOf(key);
      this.origin = key;
      return (step === "right" ? calls : calledBy)[0]?.key ?? this.beside(here, step);
    }
    const column = [...this.at.nodes].filter(([, at]) => at.column === here.column)
      .sort((a, b) => a[1].y - b[1].y);
    const place = column.findIndex(([name]) => name === key) + (step === "down" ? 1 : -1);
    if (column[place]) return column[place][0];
    const band = this.model.bands.find((one) => one.nodes.some((node) => node.key === key));
    return step === "up" && !isOthers(band.key) ? `fold ${band.key}` : null;
  }
  // Without a line to follow: the nearest node of the next column.
  beside(here, step) {
    const side = [...this.at.nodes].filter(([, at]) =>
      (step === "right" ? at.column > here.column : at.column < here.column));
    const far = ([, at]) => Math.abs(at.column - here.column) * 1000 + Math.abs(at.y - here.y);
    return side.sort((a, b) => far(a) - far(b))[0]?.[0] ?? null;
  }
  fromEdge(edge, step) {
    if (step === "right") return edge.to;
    if (step === "left") return edge.from;
    const { calls, calledBy } = this.linesOf(this.origin === edge.to ? edge.to : edge.from);
    const list = this.origin === edge.to ? calledBy : calls;
    const place = list.findIndex((one) => one.key === edge.key) + (step === "down" ? 1 : -1);
    return list[place]?.key ?? null;
  }
}
