/** The page: it holds the query, asks the server, shows what comes back, and keeps all of it in the history. */

import { openDetail, readyDetail } from "./detail.js";
import { at, counted, iconOfKind, make, percent } from "./dom.js";
import { giveExample, readyFilters, showFilters, tellWhere } from "./filters.js";
import { isKnown, partOfFile, remember, showParts } from "./parts.js";
import { EMPTY, fromHash, isComplete, nameOf, ofWords, ownItems, searched, toBody, toHash, withItems, wordsModality } from "./query.js";
import { focusCard, readyKeys, showHits } from "./results.js";
import * as server from "./server.js";

const REST = 250; // milliseconds without a key after which it is searched
const BY = { text: "words", image: "a picture", audio: "a sound", video: "a video", series: "a series (.npy)" };

const entries = new Map(); // of the history: their queries, since an address can't hold files
let modalities = {}; // of /health
let query = EMPTY;
let entry = ""; // of the history, whose query is shown
let wasTyping = false; // whether the entry is of a query that was being typed: the next letter changes it
let timer = 0;
let asking = new AbortController();
let hits = [];
const acts = {
  open: (hit) => openDetail(hit, hits, modalities),
  like: (hit) => searchLike(hit),
  add: (hit) => addItem(hit, 1),
  subtract: (hit) => addItem(hit, -1),
};

async function start() {
  readyBox();
  readyFiles();
  readyFilters(go);
  readyKeys(at("grid"), acts);
  readyDetail(acts);
  window.onpopstate = (event) => restore(event.state?.entry);
  document.addEventListener("keydown", onSlash);
  await greet();
}

/** Ask what there is, and then show the query of the address. */
async function greet() {
  try {
    modalities = (await server.health()).modalities;
  } catch (failure) {
    if (!(failure instanceof server.Failure)) throw failure;
    say(failure.message, [["Try again", greet]]);
    return;
  }
  document.body.classList.add("is-ready");
  const byWords = ofWords(modalities);
  at("words").disabled = !byWords.length;
  if (!byWords.length) at("words").placeholder = "Drop a file, or choose one";
  at("words-by").hidden = byWords.length < 2;
  at("words-by").replaceChildren(...byWords.map((name) => make("option", {}, name)));
  showStart();
  restore(history.state?.entry);
}

/**
 * Change the query, keep it in the history and search. While it is typed the history gets one entry, not one a letter,
 * and the search waits for a rest. Else it is returned, see `run`.
 */
function go(changes, { isTyping = false } = {}) {
  query = { ...query, lostFiles: 0, ...changes };
  if (!isSame(entries.get(entry), query)) {
    const isNew = !(isTyping && wasTyping);
    if (isNew) entry = newEntry();
    entries.set(entry, query);
    history[isNew ? "pushState" : "replaceState"]({ entry }, "", `#${toHash(query)}`);
  }
  wasTyping = isTyping;
  show();
  clearTimeout(timer);
  if (!isTyping) return run();
  timer = setTimeout(run, REST);
  return null;
}

/** Show the query of an entry of the history, or that of the address if nothing is known of the entry. */
function restore(known) {
  entry = known;
  if (!entries.has(entry)) {
    entry = newEntry();
    entries.set(entry, fromHash(location.hash));
    history.replaceState({ entry }, "");
  }
  query = entries.get(entry);
  wasTyping = false;
  at("detail").close();
  at("words").value = query.words;
  show();
  run();
}

// A reload forgets the entries, but the browser keeps their names: those of one load are not those of another.
const newEntry = () => `${performance.timeOrigin} ${entries.size}`;
const filesOf = (one) => one.parts.filter((part) => part.file);
const isSame = (a, b) => toHash(a) === toHash(b) && filesOf(a).every((part, place) => part === filesOf(b)[place]);

/** Show the query. */
function show() {
  if (document.activeElement !== at("words")) at("words").value = query.words;
  at("words-by").value = wordsModality(query, modalities) ?? "";
  at("ask").classList.toggle("has-words", Boolean(query.words.trim()));
  at("clear").hidden = !query.parts.length;
  showParts(at("parts"), query.parts, modalities, changePart);
  showFilters(query, modalities, go);
  document.title = [query.words.trim(), "Search · multimodal_ssl"].filter(Boolean).join(" · ");
  lookUpParts();
}

/** Ask what the items are called that the address told the keys of. */
async function lookUpParts() {
  const unknown = query.parts.filter((part) => !isKnown(part));
  if (!unknown.length) return;
  const told = await Promise.allSettled(unknown.map((part) => server.item(part.by, part.key)));
  const found = told.filter((one) => one.status === "fulfilled").map((one) => one.value);
  found.forEach(remember); // of others the search tells that they are not there
  if (found.length) showParts(at("parts"), query.parts, modalities, changePart);
}

/** Search, and tell whether there are answers. A search that is still on its way is given up. */
async function run() {
  clearTimeout(timer);
  asking.abort();
  const own = (asking = new AbortController());
  const asked = query;
  if (!isComplete(asked, modalities)) {
    showWaiting();
    return false;
  }
  at("answers").ariaBusy = "true";
  try {
    showFound(asked, await server.search(toBody(asked, modalities), own.signal));
  } catch (failure) {
    if (own.signal.aborted) return false;
    if (!(failure instanceof server.Failure)) throw failure;
    showFailure(asked, failure);
  }
  at("answers").ariaBusy = "false";
  return hits.length > 0;
}

function showFound(asked, found) {
  const own = ownItems(asked);
  hits = found.hits.filter((hit) => !own.has(nameOf(hit.modality, hit.key))).slice(0, asked.k);
  tellWhere("");
  clear({ keepHits: true });
  showHits(at("grid"), hits, modalities, acts);
  if (hits.length) giveExample(hits[0]);
  else showNothing(asked);
  const lost = asked.lostFiles ? ` without ${asked.lostFiles === 1 ? "the file" : `the ${asked.lostFiles} files`} that a link can't hold` : "";
  at("count-told").textContent = hits.length
    ? `${counted(hits.length)} ${hits.length === 1 ? "answer" : "answers"} among ${searched(asked, modalities).join(", ")}${lost}, ${Math.max(1, Math.round(1000 * found.seconds))} ms`
    : "No answer";
}

function showNothing(asked) {
  if (asked.least) {
    const lower = Math.floor(asked.least * 10) / 20;
    const choices = [["Show the nearest anyway", () => go({ least: 0 })]];
    if (lower >= 0.05) choices.unshift([`Loosen to ${percent(lower)}`, () => go({ least: lower })]);
    say(`Nothing matches with a probability of ${percent(asked.least)} or more.`, choices);
  } else if (asked.where) {
    say("Nothing matches this condition.", [["Drop the condition", () => go({ where: "" })]]);
  } else {
    say("Nothing matches: there are no other items among what is searched.", [["Search all", () => go({ among: withItems(modalities) })]]);
  }
}

function showFailure(asked, failure) {
  clear();
  tellWhere(failure.isOfFilter ? failure.message : "");
  if (failure.isOfFilter) say("The condition can't be used: beside it stands why.", [["Drop the condition", () => go({ where: "" })]]);
  else if (failure.mayPass) say(failure.message, [["Try again", run]]);
  else say(failure.message, asked.least ? [["With any probability", () => go({ least: 0 })]] : []);
}

/** Show what there is while nothing is asked. */
function showWaiting() {
  clear();
  tellWhere("");
  at("answers").ariaBusy = "false";
  if (query.parts.length) say("Say what the file is, and it is searched by it.", []);
  else if (query.lostFiles) say("This link was of a file, which a link can't hold: drop the file here.", []);
  else at("start").hidden = false;
}

function showStart() {
  const kinds = new Set(Object.values(modalities).filter((one) => one.queries).map((one) => one.kind));
  const known = Object.keys(BY).filter((kind) => kinds.has(kind)).map((kind) => BY[kind]);
  const ways = [...known, ...[...kinds].filter((kind) => !(kind in BY)).map((kind) => `a ${kind}`)];
  const total = Object.values(modalities).reduce((sum, one) => sum + one.items, 0);
  const listed = new Intl.ListFormat("en", { type: "disjunction" }).format(ways);
  at("lead").textContent = `Search ${counted(total)} items by ${listed}: by one alone, or by several, each added or taken away.`;
  at("tiles").replaceChildren(
    ...Object.entries(modalities).map(([name, one]) =>
      make("li", {}, iconOfKind(one.kind), make("span", {}, make("b", {}, counted(one.items)), make("span", {}, one.kind === name ? name : `${name} · ${one.kind}`))),
    ),
  );
}

/** Take away what was said or shown before. */
function clear({ keepHits = false } = {}) {
  at("start").hidden = true;
  at("notice").hidden = true;
  at("count-told").textContent = "";
  if (!keepHits) {
    hits = [];
    at("grid").replaceChildren();
  }
}

/** Say one line in the place of answers, with buttons for what to do. */
function say(line, choices) {
  at("notice").replaceChildren(
    make("p", { role: "alert" }, line),
    ...choices.map(([label, act]) => make("button", { type: "button", className: "plain", onclick: act }, label)),
  );
  at("notice").hidden = false;
}

function changePart(place, part) {
  go({ parts: part ? query.parts.with(place, part) : query.parts.toSpliced(place, 1) });
}

/** Search by one answer alone, among its own modality unless others were chosen. */
function searchLike(hit) {
  remember(hit);
  const among = query.among.length ? query.among : [hit.modality];
  goFromAnswers({ words: "", parts: [{ by: hit.modality, key: hit.key, weight: 1 }], among });
}

/** Add an answer to the query, or take it away, whatever it was before; what is searched stays the same. */
function addItem(hit, weight) {
  remember(hit);
  const others = query.parts.filter((part) => part.by !== hit.modality || part.key !== hit.key);
  const parts = [...others, { by: hit.modality, key: hit.key, weight }];
  goFromAnswers({ parts, among: searched(query, modalities) });
}

/** Change the query from within the answers; the first of the new ones then has the focus. */
async function goFromAnswers(changes) {
  if (!(await go(changes))) return;
  window.scrollTo({ top: 0 });
  focusCard(at("grid").firstElementChild);
}

function readyBox() {
  at("ask").onsubmit = (event) => {
    event.preventDefault();
    go({ words: at("words").value });
  };
  at("words").oninput = () => go({ words: at("words").value }, { isTyping: true });
  at("words").onkeydown = (event) => {
    if (event.key !== "ArrowDown" || !at("grid").firstElementChild) return;
    event.preventDefault();
    focusCard(at("grid").firstElementChild);
  };
  at("words-by").onchange = () => go({ wordsBy: at("words-by").value });
  at("add-words").onclick = () => keepWords(1);
  at("subtract-words").onclick = () => keepWords(-1);
  at("clear").onclick = () => {
    go({ words: "", parts: [], among: [] });
    at("words").focus();
  };
}

/** Make a part of the words in the box, which is then free for more. */
function keepWords(weight) {
  const words = query.words.trim();
  go({ words: "", parts: [...query.parts, { by: wordsModality(query, modalities), text: words, weight }] });
  at("words").focus();
}

function readyFiles() {
  const curtain = at("curtain");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  at("choose").onclick = at("drop").onclick = () => at("file").click();
  at("file").onchange = () => {
    addFiles(at("file").files);
    at("file").value = ""; // so that the same file can be chosen again
  };
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    curtain.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) curtain.hidden = true; // it left the page, not just one of its elements
  });
  document.addEventListener("drop", (event) => {
    curtain.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    addFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    addFiles(event.clipboardData.files);
  });
}

function addFiles(files) {
  if (files.length) go({ parts: [...query.parts, ...[...files].map((file) => partOfFile(file, modalities))] });
}

function onSlash(event) {
  const isWriting = event.target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog");
  if (event.key !== "/" || isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  at("words").focus();
  at("words").select();
}

start();
