// The page: asks for the state every other second, and shows it.

import { copy, el, keep, link, setAttribute, setText } from "./dom.js";
import { showDetails, whoseText } from "./details.js";
import { STATES, ageText, rateText, wordsOf } from "./model.js";
import { Picture } from "./picture.js";

const PERIOD_MS = 2000, SOON_MS = 300, PATIENCE_MS = 8000, MOST_WAITS = 20;
const by = (id) => document.getElementById(id);

let state = null, etag = "", heardAt = 0, clockAhead = 0, timer = 0, asking = false, waits = 0;
let detail = null;  // key of what the details are of

const now = () => Date.now() + clockAhead;
const picture = new Picture(by("picture"), (what) => openDetails(what));

// --- asking ---

function askIn(ms) {
  clearTimeout(timer);
  timer = document.hidden ? 0 : setTimeout(ask, ms);
}

async function ask() {
  if (asking) return;
  asking = true;
  const find = state?.left_out ? by("filter").value.trim() : "";
  try {
    const query = find ? `?find=${encodeURIComponent(find)}` : "";
    const answer = await fetch(`/state.json${query}`, {
      headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    await take(answer);
  } catch {
    lost();
  }
  asking = false;
}

async function take(answer) {
  if (answer.status === 401) return signedOut();
  // Nobody has looked for a while: it is being made.
  if (answer.status === 503 && !state && ++waits < MOST_WAITS) return askIn(SOON_MS);
  if (answer.status !== 200 && answer.status !== 304) return lost();
  if (answer.status === 200) {
    state = await answer.json();
    etag = answer.headers.get("ETag") ?? "";
    clockAhead = state.now - Date.now();
  }
  heardAt = Date.now();
  found();
  if (answer.status === 200) show();
  showAges();
  askIn(PERIOD_MS);
}

function found() {
  document.body.classList.remove("away");
  by("lost").hidden = true;
  by("sign-in").hidden = true;
  by("main").hidden = false;
  by("who").hidden = false;
  by("contact").className = "good";
  setText(by("contact"), "Live");
}

// What is shown stays, and says how old it is.
function lost() {
  by("contact").className = "bad";
  setText(by("contact"), "No contact, trying again");
  if (state) {
    document.body.classList.add("away");
    const since = new Date(heardAt).toLocaleTimeString();
    setText(by("lost"), `No contact since ${since}. What you see is from then; this page tries `
      + "again by itself.");
    by("lost").hidden = false;
  }
  askIn(PERIOD_MS);
}

function signedOut() {
  clearTimeout(timer);
  state = null;
  etag = "";
  openDetails(null);
  by("main").hidden = true;
  by("who").hidden = true;
  by("contact").className = "";
  setText(by("contact"), "Not signed in");
  by("sign-in").hidden = false;
  by("token").focus();
}

async function signIn(event) {
  event.preventDefault();
  const token = by("token").value.trim();
  setText(by("sign-in-problem"), "");
  try {
    const answer = await fetch("/sign-in", {
      method: "POST", headers: { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(PATIENCE_MS * 4),
    });
    if (answer.ok) {
      by("token").value = "";
      return ask();
    }
    setText(by("sign-in-problem"), answer.status === 401 ? "This token is not valid here."
      : "That did not work now. Try again in a moment.");
  } catch {
    setText(by("sign-in-problem"), "No contact. Try again in a moment.");
  }
  by("token").select();
}

async function signOut() {
  try {
    await fetch("/sign-out", { method: "POST", signal: AbortSignal.timeout(PATIENCE_MS) });
    signedOut();
  } catch {
    lost();
  }
}

// --- showing ---

function matching() {
  const words = by("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  return new Set(state.workloads.filter((w) => {
    const text = wordsOf(w);
    return words.every((word) => text.includes(word));
  }).map((w) => w.id));
}

function show() {
  document.title = state.zone ? `Mesh: ${state.zone}` : "Mesh";
  setText(by("title"), document.title);
  setText(by("user"), `${state.you.name}${state.you.admin ? " (administrator)" : ""}`);
  const left = state.left_out;
  by("left-out").hidden = left === 0;
  setText(by("left-out"), `${left} more are left out here. Filter by a name to see others.`);
  const matches = matching();
  const shown = matches ? state.workloads.filter((w) => matches.has(w.id)) : state.workloads;
  setText(by("found"), matches ? `${shown.length} of ${state.workloads.length}` : "");
  const touches = (item) => !matches || matches.has(item.from) || matches.has(item.to);
  showRefusals(state.refusals.filter(touches));
  showServices(shown);
  showEdges(state.edges.filter(touches));
  picture.show(state, matches);
  setText(by("fold-all"), picture.allFolded ? "Unfold all" : "Fold all");
  showOpenDetails();
}

const labels = () => new Map([
  ...state.others.map((other) => [other.key, other.label]),
  ...state.workloads.map((w) =>
    [w.id, w.service && w.service !== w.id ? `${w.service} (${w.id})` : w.id])]);
const nameCell = (cell, text, owner) => {
  setText(cell.firstChild, text);
  setText(cell.lastChild, owner && owner !== state.you.owner ? `of ${owner}` : "");
};
const twoLines = (tag, properties) =>
  el(tag, properties, el("span", { class: "id" }), el("span", { class: "sub" }));

// Yours first, then the latest.
function showRefusals(list) {
  const label = labels();
  list.sort((a, b) => b.yours - a.yours || b.last - a.last);
  by("refusals").hidden = list.length === 0;
  keep(by("refusal-rows"), list, (r) => [r.from, r.to, r.port].join("\n"), () => {
    const code = el("code"), button = el("button", { type: "button", class: "plain" }, "Copy");
    button.addEventListener("click", () => copyFrom(code, button));
    const missing = el("td", {}, el("div", { class: "missing" }, code, button),
      el("span", { class: "sub whose" }));
    return el("tr", {}, twoLines("th", { scope: "row" }), twoLines("td"), el("td"),
      el("td", { class: "number" }), el("td", { class: "age" }), missing);
  }, (tr, refusal) => {
    const [from, to, port, count, last, missing] = tr.children;
    nameCell(from, label.get(refusal.from) ?? refusal.from, refusal.from_owner);
    nameCell(to, label.get(refusal.to) ?? refusal.to, refusal.to_owner);
    setText(port, refusal.port || "the name");
    setText(count, String(refusal.count));
    last.dataset.then = refusal.last;
    setText(missing.querySelector("code"), refusal.missing || "none would allow it");
    missing.querySelector("button").hidden = !refusal.missing;
    const whose = missing.querySelector(".whose");
    setText(whose, whoseText(refusal));
    whose.classList.toggle("yours", refusal.yours);
  });
}

async function copyFrom(code, button) {
  const done = await copy(code.textContent);
  setText(button, done ? "Copied" : "Cannot copy");
  setTimeout(() => setText(button, "Copy"), PERIOD_MS);
}

function showServices(list) {
  const mine = (w) => (w.owner === state.you.owner ? 0 : 1);
  const order = (w) => [mine(w), w.links.length ? 0 : 1, w.service ? 0 : 1, w.service, w.id];
  const before = (a, b) => {
    const x = order(a), y = order(b);
    for (let i = 0; i < x.length; ++i) if (x[i] !== y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
  };
  by("no-services").hidden = state.workloads.length > 0;
  keep(by("service-rows"), [...list].sort(before), (w) => w.id, () => el("tr", {},
    twoLines("th", { scope: "row" }), el("td", {}, el("span", { class: "state" })),
    el("td", {}, el("ul")), el("td"), el("td"), el("td")),
  (tr, w) => {
    const [name, condition, open, owner, workflow, node] = tr.children;
    setText(name.firstChild, w.service || w.id);
    const more = [w.service ? w.id : "", w.serves.join(", ")];
    setText(name.lastChild, more.filter(Boolean).join(" · "));
    const about = condition.firstChild;
    setAttribute(about, "class", `state ${w.state.toLowerCase()}${w.stale ? " stale" : ""}`);
    setText(about, w.stale ? `${STATES[w.state]}, no news of its node` : STATES[w.state]);
    showLinks(open.firstChild, w);
    setText(owner, w.owner);
    setText(workflow, w.workflow);
    setText(node, w.node);
  });
}

function showLinks(list, w) {
  const items = [...w.links, ...w.outside.map((text) => ({ text }))];
  const opener = (to) => link(to.href, to.label || to.url,
    { target: "_blank", rel: "noopener", title: to.url });
  const key = (to) => JSON.stringify([to.href, to.label, to.url, to.text]);
  keep(list, items, key,
    (to) => el("li", {}, to.text || opener(to), el("span", { class: "soft" })),
  (li, to) => setText(li.lastChild, to.text || to.ready ? "" : " not ready yet"));
}

function showEdges(list) {
  const label = labels();
  const refused = new Map();
  for (const one of state.refusals) {
    const key = `${one.from}\r${one.to}`;
    refused.set(key, (refused.get(key) ?? 0) + one.count);
  }
  by("no-edges").hidden = state.edges.length > 0;
  keep(by("edge-rows"), list, (edge) => `${edge.from}\r${edge.to}`, () => el("tr", {},
    el("th", { scope: "row" }), el("td"), el("td"), el("td", { class: "number" }),
    el("td", { class: "number" })),
  (tr, edge) => {
    const [from, to, ports, traffic, times] = tr.children;
    setText(from, label.get(edge.from) ?? edge.from);
    setText(to, label.get(edge.to) ?? edge.to);
    setText(ports, edge.open ? edge.ports.join(", ") : "declared, not admitted there");
    setText(traffic, rateText(edge.bytes_s) || "–");
    traffic.classList.toggle("is-live", edge.bytes_s > 0);
    const count = refused.get(`${edge.from}\r${edge.to}`) ?? 0;
    setText(times, count ? String(count) : "–");
    times.classList.toggle("is-bad", count > 0);
  });
}

function showAges() {
  for (const cell of document.querySelectorAll(".age")) {
    setText(cell, ageText(Number(cell.dataset.then), now()));
  }
}

// --- details ---

function openDetails(what) {
  detail = what?.node?.key ?? what?.edge?.key ?? null;
  showDetails(by("details"), what, picture, now(), closeDetails);
  if (what) by("details").focus({ preventScroll: true });
}
function closeDetails() {
  const key = detail;
  openDetails(null);
  picture.mark(null);
  picture.focus(key);
}
// With new data; what somebody is about to press stays under their finger.
function showOpenDetails() {
  if (detail === null) return;
  const node = picture.model.nodes.get(detail);
  const edge = picture.model.edges.find((one) => one.key === detail);
  if (!node && !edge) return openDetails(null);
  const panel = by("details"), had = panel.contains(document.activeElement);
  const at = [...panel.querySelectorAll("button, a")].indexOf(document.activeElement);
  showDetails(panel, node ? { node } : { edge }, picture, now(), closeDetails);
  if (had) (panel.querySelectorAll("button, a")[at] ?? panel).focus({ preventScroll: true });
}

// --- the start ---

by("sign-in-form").addEventListener("submit", signIn);
by("sign-out").addEventListener("click", signOut);
by("filter").addEventListener("input", () => {
  if (!state) return;
  show();
  showAges();
  if (state.left_out) askIn(SOON_MS);
});
by("fold-all").addEventListener("click", () => {
  picture.foldAll(!picture.allFolded);
  setText(by("fold-all"), picture.allFolded ? "Unfold all" : "Fold all");
});
by("details").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeDetails();
});
document.addEventListener("visibilitychange", () => askIn(0));
ask();
