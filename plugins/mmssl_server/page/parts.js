/** The chips: parts of the query, each with its sign, its weight and a way out. */

import { at, iconButton, iconOfKind, make } from "./dom.js";
import { modalitiesOf } from "./files.js";
import { HEAVIEST, nameOf } from "./query.js";

const seen = new Map(); // of the items in queries: what they are called and look like
const pictures = new WeakMap(); // of files: where the page finds them
let shown = []; // parts and modalities whose chips are there: typing words leaves them alone

/** Keep how an item is told, for its chip. */
export function remember(item) {
  seen.set(nameOf(item.modality, item.key), { label: item.caption ?? item.text ?? item.key, preview: item.preview });
  shown = [];
}

/** Return whether the chip of a part can tell more than its key. */
export const isKnown = (part) => part.key === undefined || seen.has(nameOf(part.by, part.key));

/** Show the parts; `change(place, part)` is called with another part for one, or with null to take it out. */
export function showParts(list, parts, modalities, change) {
  if (shown[0] === parts && shown[1] === modalities) return;
  shown = [parts, modalities];
  const held = [...list.children].findIndex((chip) => chip.contains(document.activeElement));
  const field = held >= 0 ? document.activeElement.dataset.field : null;
  list.replaceChildren(...parts.map((part, place) => chipOf(part, modalities, (other) => change(place, other))));
  if (held < 0) return;
  const next = list.children[Math.min(held, parts.length - 1)];
  (next?.querySelector(`[data-field="${field}"]`) ?? at("words")).focus();
}

function chipOf(part, modalities, change) {
  const label = labelOf(part);
  const away = part.weight < 0;
  const told = away ? "Taken away: press to add it" : "Added: press to take it away";
  const turn = () => change({ ...part, weight: -part.weight });
  const sign = iconButton(away ? "minus" : "plus", `${label}: ${told}`, turn, { className: "sign", title: told });
  sign.dataset.field = "sign";
  const remove = iconButton("close", `Remove ${label}`, () => change(null));
  remove.dataset.field = "remove";
  return make(
    "li",
    { className: away ? "chip is-away" : "chip" },
    sign,
    thumbnailOf(part, modalities),
    make("span", { className: "label", title: label }, label),
    part.file ? modalityChoice(part, modalities, change) : null,
    weightField(part, label, change),
    remove,
  );
}

function labelOf(part) {
  if (part.file) return part.file.name || "pasted file";
  return part.key === undefined ? part.text : (seen.get(nameOf(part.by, part.key))?.label ?? part.key);
}

function thumbnailOf(part, modalities) {
  const address = part.file ? addressOf(part.file) : seen.get(nameOf(part.by, part.key))?.preview;
  if (address) return make("img", { alt: "", src: address, width: 32, height: 32, draggable: false });
  return iconOfKind(modalities[part.by]?.kind);
}

function addressOf(file) {
  if (!file.type.startsWith("image/")) return null;
  if (!pictures.has(file)) pictures.set(file, URL.createObjectURL(file));
  return pictures.get(file);
}

/** Make a choice of what a file is, or nothing if that is plain. */
function modalityChoice(part, modalities, change) {
  const fit = modalitiesOf(part.file, modalities);
  if (fit.length === 1) return null;
  const choice = make(
    "select",
    { "aria-label": `Modality of ${labelOf(part)}`, onchange: () => change({ ...part, by: choice.value }) },
    make("option", { value: "", disabled: true }, "What is it?"),
    ...fit.map((name) => make("option", { value: name }, name)),
  );
  choice.value = part.by;
  choice.dataset.field = "modality";
  return choice;
}

function weightField(part, label, change) {
  const field = make("input", {
    type: "number", min: 0.1, max: HEAVIEST, step: 0.1, value: Math.abs(part.weight), title: "Weight",
    "aria-label": `Weight of ${label}`,
  });
  field.dataset.field = "weight";
  field.onchange = () => {
    const weight = field.validity.badInput || !(field.valueAsNumber > 0) ? 1 : Math.min(HEAVIEST, field.valueAsNumber);
    change({ ...part, weight: Math.sign(part.weight) * weight });
  };
  return field;
}
