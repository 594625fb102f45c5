/** Elements of the page. Nothing here or elsewhere reads a text as HTML: items may be named anything. */

const SVG = "http://www.w3.org/2000/svg";
const KINDS = ["image", "text", "audio", "series", "video"];

/** Return the element of the page with this id. */
export const at = (id) => document.getElementById(id);

/** Make an element. Names with a dash and `role` are attributes, others properties; children are elements and texts. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Return one of the icons that stand at the head of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Return the icon of a kind of modality. */
export const iconOfKind = (kind) => icon(KINDS.includes(kind) ? kind : "other");

/** Make a button that shows an icon alone, so that its name is told to who can't see it. */
export function iconButton(name, label, act, properties = {}) {
  const usual = { type: "button", className: "quiet", title: label, "aria-label": label, onclick: act };
  return make("button", { ...usual, ...properties }, icon(name));
}

/** Write a number with a separator of thousands. */
export const counted = (number) => number.toLocaleString("en");

/** Write a probability; neither a guess nor a rest is told as certainty. */
export function percent(probability) {
  if (probability > 0.99 && probability < 1) return "> 99 %";
  if (probability > 0 && probability < 0.01) return "< 1 %";
  return `${Math.round(probability * 100)} %`;
}
