/** What stands in the place of answers: what there is to search, or one line and what to do. */

import { at, counted, iconOfKind, make } from "./dom.js";

const WAYS = { text: "words", image: "a picture", audio: "a sound", video: "a video", series: "a series (.npy)" };

/** Say one line, with buttons for what to do: pairs of a label and a function. */
export function say(line, choices = []) {
  at("notice").replaceChildren(
    make("p", { role: "alert" }, line),
    ...choices.map(([label, act]) => make("button", { type: "button", className: "plain", onclick: act }, label)),
  );
  at("notice").hidden = false;
}

/** Write what the start tells: how many items of which modalities there are, and by what they are searched. */
export function writeStart(modalities) {
  const kinds = new Set(Object.values(modalities).filter((one) => one.queries).map((one) => one.kind));
  const usual = Object.keys(WAYS).filter((kind) => kinds.has(kind)).map((kind) => WAYS[kind]);
  const ways = [...usual, ...[...kinds].filter((kind) => !(kind in WAYS)).map((kind) => `a ${kind}`)];
  const listed = new Intl.ListFormat("en", { type: "disjunction" }).format(ways);
  const total = Object.values(modalities).reduce((sum, one) => sum + one.items, 0);
  at("lead").textContent =
    `Search ${counted(total)} items by ${listed}: by one alone, or by several, each added or taken away.`;
  at("tiles").replaceChildren(...Object.entries(modalities).map(([name, one]) => tileOf(name, one)));
}

function tileOf(name, { kind, items }) {
  const told = kind === name ? name : `${name} · ${kind}`;
  return make("li", {}, iconOfKind(kind), make("span", {}, make("b", {}, counted(items)), make("span", {}, told)));
}
