/** The page: it holds the query, asks the server, shows what comes back, and keeps all of it in the history. */

import { openDetail, readyDetail } from "./detail.js";
import { at, counted, make, percent } from "./dom.js";
import { partOfFile, readyFiles } from "./files.js";
import { giveExample, readyFilters, showFilters, tellWhere } from "./filters.js";
import { say, writeStart } from "./notices.js";
import { isKnown, remember, showParts } from "./parts.js";
import {
  EMPTY, fromHash, isComplete, nameOf, ofWords, ownItems, searched, toBody, toHash, withItems, wordsModality,
} from "./query.js";
import { focusCard, readyKeys, showHits } from "./results.js";
import * as server from "./server.js";

const REST = 250; // milliseconds without a key after which it is searched
const MOST_BYTES = Number(document.documentElement.dataset.mostBytes); // that the server reads of a request
const HEAD = 100_000; // bytes of a request beside its files

const entries = new Map(); // of the history: their queries, since an address can't hold files
let modalities = {}; // of /health
let isGreeted = false; // whether they are known
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
  readyFiles(addFiles);
  readyFilters(go);
  readyKeys(at("grid"), acts);
  readyDetail(acts);
  window.onpopstate = (event) => restore(event.state?.entry);
  document.addEventListener("keydown", onSlash);
  takeEntry(history.state?.entry);
  at("words").value = query.words;
  await greet();
}

/** Ask what there is, and then search for what the address tells, or for what was typed meanwhile. */
async function greet() {
  try {
    modalities = (await server.health()).modalities;
  } catch (failure) {
    if (!(failure instanceof server.Failure)) throw failure;
    say(failure.message, [["Try again", greet]]);
    return;
  }
  isGreeted = true;
  document.body.classList.add("is-ready");
  const byWords = ofWords(modalities);
  at("words").disabled = !byWords.length;
  if (!byWords.length) at("words").placeholder = "Drop a file, or choose one";
  at("words-by").hidden = byWords.length < 2;
  at("words-by").replaceChildren(...byWords.map((name) => make("option", {}, name)));
  writeStart(modalities);
  show();
  run();
}

/** Change the query and search. While it is typed that waits for a rest; else the search is returned, see `run`. */
function go(changes, { isTyping = false } = {}) {
  query = { ...query, lostFiles: 0, ...changes };
  show();
  clearTimeout(timer);
  if (!isTyping) return settle(false);
  timer = setTimeout(() => settle(true), REST);
  return null;
}

/** Keep the query in the history, where one that is still typed takes the place of what it was, and search. */
function settle(isTyping) {
  if (!isSame(entries.get(entry), query)) {
    const isNew = !(isTyping && wasTyping);
    if (isNew) entry = newEntry();
    entries.set(entry, query);
    history[isNew ? "pushState" : "replaceState"]({ entry }, "", `#${toHash(query)}`);
  }
  wasTyping = isTyping;
  return run();
}

/** Show the query of an entry of the history. */
function restore(known) {
  takeEntry(known);
  at("detail").close();
  at("words").value = query.words;
  show();
  run();
}

/** Take the query of an entry of the history, or that of the address if nothing is known of the entry. */
function takeEntry(known) {
  entry = known;
  if (!entries.has(entry)) {
    entry = newEntry();
    entries.set(entry, fromHash(location.hash));
    history.replaceState({ entry }, "");
  }
  query = entries.get(entry);
  wasTyping = false;
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
  if (!isGreeted) return false;
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
  at("count-told").textContent = hits.length ? countOf(asked, found.seconds) : "No answer";
}

function countOf(asked, seconds) {
  const answers = hits.length === 1 ? "1 answer" : `${counted(hits.length)} answers`;
  const lost = asked.lostFiles === 1 ? " without the file" : ` without the ${asked.lostFiles} files`;
  const without = asked.lostFiles ? `${lost} that a link can't hold` : "";
  const milliseconds = Math.max(1, Math.round(1000 * seconds));
  return `${answers} among ${searched(asked, modalities).join(", ")}${without}, ${counted(milliseconds)} ms`;
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
    const all = withItems(modalities);
    say("Nothing matches: there are no other items where it is searched.", [["Search all", () => go({ among: all })]]);
  }
}

function showFailure(asked, failure) {
  clear();
  tellWhere(failure.isOfFilter ? failure.message : "");
  if (failure.isOfFilter) {
    say("The condition can't be used: beside it stands why.", [["Drop the condition", () => go({ where: "" })]]);
  } else if (failure.mayPass) {
    say(failure.message, [["Try again", run]]);
  } else {
    say(failure.message, asked.least ? [["With any probability", () => go({ least: 0 })]] : []);
  }
}

/** Show what there is while nothing is asked. */
function showWaiting() {
  clear();
  tellWhere("");
  at("answers").ariaBusy = "false";
  if (query.parts.length) say("Say what the file is, and it is searched by it.");
  else if (query.lostFiles) say("This link was of a file, which a link can't hold: drop the file here.");
  else at("start").hidden = false;
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

function addFiles(files) {
  const held = query.parts.reduce((sum, part) => sum + (part.file?.size ?? 0), 0);
  if (files.reduce((sum, file) => sum + file.size, held) > MOST_BYTES - HEAD) {
    // The server would refuse it too, but may hang up before the browser has read why.
    const most = counted(MOST_BYTES / 2 ** 20);
    say(`${files[0].name} is too large: the server reads at most ${most} MiB at once.`);
  } else if (files.length) {
    go({ parts: [...query.parts, ...files.map((file) => partOfFile(file, modalities))] });
  }
}

function onSlash(event) {
  const isWriting = event.target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog");
  if (event.key !== "/" || isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  at("words").focus();
  at("words").select();
}

start();
