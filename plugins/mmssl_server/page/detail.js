/** The view of one answer: all that is known of it, and what can be done with it. */

import { at, icon, iconButton, make } from "./dom.js";
import { probabilityOf, sightOf, soundOf, titleOf } from "./results.js";

let hits = [];
let place = 0;
let kinds = {};
let acts = {};

/** Make the view work; `act.like`, `act.add` and `act.subtract` take a hit. */
export function readyDetail(act) {
  const dialog = at("detail");
  acts = act;
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  };
  dialog.onkeydown = (event) => {
    if (event.target.tagName === "AUDIO") return; // where arrows lead through the sound
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  };
}

/** Open the view of one of some hits. */
export function openDetail(hit, all, modalities) {
  hits = all;
  kinds = modalities;
  show(all.indexOf(hit));
  at("detail").showModal();
  at("detail").querySelector(".close").focus();
}

function show(next) {
  const hit = hits[next];
  if (!hit) return;
  place = next;
  const dialog = at("detail");
  const field = dialog.contains(document.activeElement) ? document.activeElement.dataset.field : null;
  dialog.replaceChildren(header(hit), body(hit), footer(hit));
  dialog.querySelector(`[data-field="${field}"]:not(:disabled)`)?.focus();
  if (field && !dialog.contains(document.activeElement)) dialog.querySelector(".close").focus();
}

function header(hit) {
  const step = (name, label, change) => {
    const button = iconButton(name, label, () => show(place + change), { disabled: !hits[place + change] });
    button.dataset.field = name;
    return button;
  };
  const close = iconButton("close", "Close", () => at("detail").close(), { className: "quiet close" });
  close.dataset.field = "close";
  return make(
    "header",
    {},
    make("p", { className: "place" }, `${place + 1} of ${hits.length}`),
    step("left", "The answer before", -1),
    step("right", "The next answer", 1),
    close,
  );
}

function body(hit) {
  const title = titleOf(hit);
  const sight = sightOf(hit, kinds[hit.modality]?.kind ?? "other");
  const about = [
    ["key", hit.key],
    ["modality", hit.modality],
    ["group", hit.group],
    ["file", hit.path],
    ["score", hit.score.toFixed(4)],
    ...Object.entries(hit.metadata),
  ].filter(([, value]) => value !== null);
  return make(
    "div",
    { className: "body" },
    make("div", { className: "figure" }, make("div", { className: "frame" }, sight), soundOf(hit)),
    make(
      "div",
      { className: "facts" },
      make("h2", { id: "detail-title" }, title),
      hit.text && hit.text !== title ? make("p", { className: "full" }, hit.text) : null,
      make("p", { className: "odds" }, make("span", {}, "Probability of a match"), probabilityOf(hit)),
      make("dl", {}, ...about.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])),
    ),
  );
}

function footer(hit) {
  const button = (name, label, act, className) =>
    make("button", { type: "button", className, onclick: () => (at("detail").close(), act(hit)) }, icon(name), label);
  return make(
    "footer",
    {},
    button("like", "More like this", acts.like, "main"),
    button("plus", "Add", acts.add, "plain"),
    button("minus", "Take away", acts.subtract, "plain"),
  );
}
