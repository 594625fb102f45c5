/** The answers: a grid of cards, of which one is in the order of the Tab key and the arrows lead to the others. */

import { icon, iconButton, iconOfKind, make, percent } from "./dom.js";
import { nameOf } from "./query.js";

const SMALL = 96; // pixels: narrower pictures, such as icons, get a margin
const cards = new WeakMap(); // element -> its hit, which is another one after each search
let current = null; // the card that the Tab key leads to

/** Return what an item is called. */
export const titleOf = (item) => item.caption ?? item.text ?? item.key;

/** Return what a person sees of an item: its picture, else its text. */
export function sightOf(item, kind) {
  if (item.preview) {
    const alt = item.caption ?? item.text ?? `${item.modality} ${item.key}`;
    const look = { className: `sight is-${kind}`, loading: "lazy", decoding: "async", draggable: false };
    const picture = make("img", { ...look, alt });
    picture.onload = () => picture.classList.toggle("is-small", picture.naturalWidth < SMALL);
    picture.src = item.preview;
    return picture;
  }
  if (item.text ?? item.caption) return make("span", { className: "sight words" }, item.text ?? item.caption);
  return make("span", { className: "sight" }, iconOfKind(kind));
}

/** Return a player, or null if the item has no sound. */
export function soundOf(item) {
  if (!item.sound) return null;
  return make("audio", { controls: true, preload: "none", src: item.sound, "aria-label": `Sound of ${titleOf(item)}` });
}

/** Return how probable a match is as a bar and a number. The score is told on hover. */
export function probabilityOf(hit) {
  const title = `Score ${hit.score.toFixed(4)}`;
  if (hit.probability === null) return make("span", { className: "probability is-unknown", title }, "no probability");
  const fill = make("span", {});
  fill.style.width = `${100 * hit.probability}%`;
  const bar = make("span", { className: "meter", "aria-hidden": "true" }, fill);
  const number = make("span", { className: "number" }, percent(hit.probability));
  return make("span", { className: "probability", title }, bar, number);
}

/** Show hits. Cards of those that were there before are taken again, so that their pictures don't flicker. */
export function showHits(grid, hits, modalities, acts) {
  const before = new Map([...grid.children].map((card) => [card.dataset.name, card]));
  const shown = hits.map((hit) => {
    const name = nameOf(hit.modality, hit.key);
    const card = before.get(name) ?? makeCard(name, hit, modalities[hit.modality]?.kind ?? "other", acts);
    update(card, hit);
    return card;
  });
  grid.replaceChildren(...shown);
  if (!shown.includes(current)) setCurrent(shown[0] ?? null);
}

/** Let the arrows lead from card to card, and + − m act on the one that has the focus. */
export function readyKeys(grid, acts) {
  grid.addEventListener("focusin", (event) => setCurrent(event.target.closest(".card")));
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "AUDIO") return;
    const all = [...grid.children];
    const place = all.indexOf(current);
    const columns = all.filter((card) => card.offsetTop === all[0].offsetTop).length;
    const toEnd = all.length - 1 - place;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -place, End: toEnd,
    };
    const shortcuts = { "+": acts.add, "-": acts.subtract, m: acts.like };
    if (event.key in steps) {
      focusCard(all[place + steps[event.key]]);
    } else if (event.key in shortcuts) {
      shortcuts[event.key](cards.get(current));
    } else return;
    event.preventDefault();
  });
}

/** Give a card the focus, if there is one. */
export const focusCard = (card) => card?.querySelector(".open").focus();

function makeCard(name, hit, kind, acts) {
  const act = (call) => () => call(cards.get(card));
  const title = titleOf(hit);
  const like = { type: "button", className: "like", title: "More like this (m)", "aria-label": `More like ${title}` };
  const isTold = !hit.preview && title === (hit.text ?? hit.caption); // the text is all there is to see
  const card = make(
    "li",
    { className: isTold ? "card is-told" : "card" },
    make(
      "button",
      { type: "button", className: "open", onclick: act(acts.open), "aria-keyshortcuts": "m + -" },
      make("span", { className: "frame" }, sightOf(hit, kind)),
      make("span", { className: "title" }, isTold ? "" : title),
    ),
    soundOf(hit),
    make("div", { className: "odds" }),
    make("p", { className: "origin", title: `${hit.modality} ${hit.key}` }, make("b", {}, hit.modality), " ", hit.key),
    make(
      "div",
      { className: "acts" },
      make("button", { ...like, onclick: act(acts.like) }, icon("like"), make("span", {}, "More like this")),
      iconButton("plus", `Add ${title} to the query`, act(acts.add), { title: "Add to the query (+)" }),
      iconButton("minus", `Take ${title} away from the query`, act(acts.subtract), {
        title: "Take away from the query (−)",
      }),
    ),
  );
  card.dataset.name = name;
  allowTab(card, false);
  return card;
}

function update(card, hit) {
  cards.set(card, hit);
  card.querySelector(".odds").replaceChildren(probabilityOf(hit));
  const odds = hit.probability === null ? "no probability" : `probability ${percent(hit.probability)}`;
  card.querySelector(".open").setAttribute("aria-label", `${titleOf(hit)}, ${hit.modality}, ${odds}`);
}

function setCurrent(card) {
  if (current) allowTab(current, false);
  current = card;
  if (current) allowTab(current, true);
}

function allowTab(card, isAllowed) {
  for (const control of card.querySelectorAll("button, audio")) control.tabIndex = isAllowed ? 0 : -1;
}
