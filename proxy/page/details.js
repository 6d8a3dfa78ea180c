// What is known of one node or line of the picture, beside it.

import { STATES, ageText, rateText } from "./model.js";
import { el, link } from "./dom.js";

const row = (name, value) => (value ? [el("dt", {}, name), el("dd", {}, value)] : []);
const part = (title, items) => (items.length
  ? [el("h4", {}, title), el("ul", {}, ...items.map((item) => el("li", {}, item)))] : []);
const button = (text, onclick) => el("button", { type: "button", class: "plain", onclick }, text);

export function refusalText(refusal, now) {
  const times = `${refusal.count} ${refusal.count === 1 ? "time" : "times"}`;
  return `${refusal.port || "the name"}: ${times}, last ${ageText(refusal.last, now)}`;
}
export function whoseText(refusal) {
  if (refusal.yours) return "Yours to add";
  const owner = refusal.whose === "consumer" ? refusal.from_owner : refusal.to_owner;
  if (refusal.whose === "nobody") return "Nobody provides it yet";
  if (!refusal.missing) return "";
  return owner ? `For ${owner} to add` : "For its owner to add";
}

function linesFor(node, picture) {
  const { calls, calledBy } = picture.linesOf(node.key), { nodes } = picture.model;
  const line = (edge, end) => {
    const about = [rateText(edge.bytes), edge.refused ? `${edge.refused} refused` : ""];
    const text = [nodes.get(end).label, ...about].filter(Boolean).join(", ");
    return button(text, () => picture.pick(edge.key));
  };
  return [...part("Calls", calls.map((edge) => line(edge, edge.to))),
    ...part("Is called by", calledBy.map((edge) => line(edge, edge.from)))];
}

function containersOf(node) {
  if (node.members.length < 2) return [];
  const most = 12;
  const items = node.members.slice(0, most).map((w) =>
    `${w.id}: ${STATES[w.state]}${w.node ? ` on ${w.node}` : ""}`);
  if (node.members.length > most) items.push(`and ${node.members.length - most} more`);
  return part("Containers", items);
}

function nodeDetails(node, picture) {
  const one = node.members[0];
  const single = node.members.length === 1;
  const links = node.kind === "folded" ? [] : node.members.flatMap((w) => w.links);
  const lost = single && one.stale ? "; its node has not been heard of for a while" : "";
  const state = single ? STATES[one.state] + lost : node.sub;
  return [
    el("dl", {},
      ...row("State", node.kind === "other" ? node.sub : state), ...row("Owner", node.owner),
      ...row("Workflow", one?.workflow), ...row("Id", single && one.service ? one.id : ""),
      ...row("Node", single ? one.node : ""),
      ...row("Serves", node.kind === "folded" ? "" : (one?.serves ?? []).join(", ")),
      ...row("From outside", single ? one.outside.join(", ") : "")),
    ...part("Open", links.slice(0, 12).map((to) =>
      link(to.href, to.label || to.url, { target: "_blank", rel: "noopener", title: to.url }))),
    ...containersOf(node), ...linesFor(node, picture),
  ];
}

function edgeDetails(edge, picture, now) {
  const { nodes } = picture.model;
  const ports = [...new Set(edge.parts.flatMap((one) => one.ports))];
  const flows = edge.parts.flatMap((one) => one.flows).filter((flow) => flow.bytes_s > 0);
  const ends = [["From", edge.from], ["To", edge.to]].flatMap(([name, key]) =>
    row(name, button(nodes.get(key).label, () => picture.pick(key))));
  const none = edge.parts.length ? "nobody there admits it yet" : "nothing";
  const declared = ports.length ? ports.join(", ") : none;
  return [
    el("dl", {}, ...ends, ...row("Declared", declared)),
    ...part("Traffic now", flows.map((flow) =>
      `${flow.port}: ${rateText(flow.bytes_s)}, ${flow.packets_s} packets/s`)),
    ...part("Refused", edge.refusals.map((refusal) => el("div", {}, refusalText(refusal, now),
      refusal.missing ? el("code", { class: "sub" }, refusal.missing) : null,
      el("span", { class: `whose${refusal.yours ? " yours" : ""}` }, whoseText(refusal))))),
  ];
}

// Fills `panel`; `what` is {node}, {edge} or null.
export function showDetails(panel, what, picture, now, close) {
  panel.hidden = !what;
  if (!what) return panel.replaceChildren();
  const { nodes } = picture.model;
  const label = (key) => nodes.get(key).label;
  const title = what.node?.label ?? `${label(what.edge.from)} → ${label(what.edge.to)}`;
  const shut = button("Close", close);
  shut.setAttribute("aria-label", "Close details");
  panel.replaceChildren(
    el("div", { class: "head" }, el("h3", {}, title), shut),
    ...(what.node ? nodeDetails(what.node, picture) : edgeDetails(what.edge, picture, now)));
}
