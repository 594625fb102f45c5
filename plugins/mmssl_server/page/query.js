/**
 * A query: what is asked, how it stands in the address of the page, and how it is told to the server.
 *
 * words: what stands in the box, a part of weight 1.
 * wordsBy: its modality, "" for the first one of texts.
 * parts: of by (modality), weight, and one of text, key and file.
 * among: modalities to search; none stands for all but that of the first part (see `searched`).
 * least: the least probability of a match.
 * lostFiles: how many files the address told of, which only who made it has.
 */
export const HEAVIEST = 1000; // weight
const MOST = Number(document.documentElement.dataset.mostAnswers); // that the server gives
const USUAL = [12, 24, 48, 96].filter((count) => count <= MOST);
export const COUNTS = USUAL.length ? USUAL : [MOST];
const DUPLICATE = 0.98; // the cosine from which an answer is folded into a better one

export const EMPTY = Object.freeze({
  words: "",
  wordsBy: "",
  parts: [],
  among: [],
  k: COUNTS[1] ?? COUNTS[0],
  where: "",
  onePerGroup: false,
  fold: false,
  least: 0,
  lostFiles: 0,
});

/** Return the part of the address behind # that makes the same query, but for files. */
export function toHash(query) {
  const told = new URLSearchParams();
  if (query.words) told.append("words", query.words);
  if (query.wordsBy) told.append("words-by", query.wordsBy);
  for (const part of query.parts.filter((one) => !one.file)) {
    told.append("by", part.by);
    told.append(part.key === undefined ? "text" : "key", part.key ?? part.text);
    if (part.weight !== 1) told.append("weight", part.weight);
  }
  const files = query.parts.filter((one) => one.file).length + query.lostFiles;
  if (files) told.append("files", files);
  for (const name of query.among) told.append("among", name);
  if (query.k !== EMPTY.k) told.append("k", query.k);
  if (query.where) told.append("where", query.where);
  if (query.onePerGroup) told.append("one-per-group", "yes");
  if (query.fold) told.append("fold", "yes");
  if (query.least) told.append("least", query.least);
  return told.toString();
}

/** Return the query of an address; what makes no sense there is left out, since anybody may write it. */
export function fromHash(hash) {
  const query = { ...EMPTY, parts: [], among: [] };
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const last = query.parts.at(-1);
    const number = Number(value);
    if (name === "words") query.words = value;
    else if (name === "words-by") query.wordsBy = value;
    else if (name === "by") query.parts.push({ by: value, weight: 1 });
    else if ((name === "text" || name === "key") && last) last[name] = value;
    else if (name === "weight" && last && number && Math.abs(number) <= HEAVIEST) last.weight = number;
    else if (name === "files" && number > 0) query.lostFiles = Math.floor(number);
    else if (name === "among") query.among.push(value);
    else if (name === "k" && COUNTS.includes(number)) query.k = number;
    else if (name === "where") query.where = value;
    else if (name === "one-per-group") query.onePerGroup = true;
    else if (name === "fold") query.fold = true;
    else if (name === "least" && number > 0 && number <= 1) query.least = number;
  }
  query.parts = query.parts.filter((part) => (part.text === undefined) !== (part.key === undefined));
  return query;
}

/** Return all parts, what stands in the box being the first. */
export function partsOf(query, modalities) {
  const by = wordsModality(query, modalities);
  const words = query.words.trim();
  return words && by ? [{ by, text: words, weight: 1 }, ...query.parts] : query.parts;
}

/** Return the modality that words in the box are of, or undefined if nothing is searched by words. */
export function wordsModality(query, modalities) {
  const names = ofWords(modalities);
  return names.includes(query.wordsBy) ? query.wordsBy : names[0];
}

/** Return the modalities that take words. */
export const ofWords = (modalities) =>
  Object.keys(modalities).filter((name) => modalities[name].queries && modalities[name].kind === "text");

/**
 * Return the modalities to search. The server would leave out those of all parts; but who adds a picture to words
 * means the same answers as before, only better.
 */
export function searched(query, modalities) {
  if (query.among.length) return query.among;
  const first = partsOf(query, modalities)[0]?.by;
  const others = withItems(modalities).filter((name) => name !== first);
  return others.length ? others : [first];
}

/** Return the modalities that there are items of. */
export const withItems = (modalities) => Object.keys(modalities).filter((name) => modalities[name].items);

/** Return whether the query can be asked: it has parts, and of every file it is known what it is. */
export function isComplete(query, modalities) {
  const parts = partsOf(query, modalities);
  return parts.length > 0 && parts.every((part) => part.by);
}

/** Return the name of an item that is unique among all modalities. */
export const nameOf = (modality, key) => JSON.stringify([modality, key]);

/** Return the names of the items that the query is made of: they are no answers to it. */
export const ownItems = (query) =>
  new Set(query.parts.filter((part) => part.key !== undefined).map((part) => nameOf(part.by, part.key)));

/** Return the body of a request: JSON, or a form where there are files. */
export function toBody(query, modalities) {
  const form = new FormData();
  const terms = partsOf(query, modalities).map(({ by, text, key, file, weight }, place) => {
    if (!file) return key === undefined ? { by, text, weight } : { by, key, weight };
    form.append(`file${place}`, file);
    return { by, upload: `file${place}`, weight };
  });
  const request = JSON.stringify({
    terms,
    among: searched(query, modalities),
    k: Math.min(MOST, query.k + ownItems(query).size),
    where: query.where || null,
    one_per_group: query.onePerGroup,
    fold: query.fold ? DUPLICATE : null,
    min_probability: query.least,
  });
  if (!terms.some((term) => term.upload)) return request;
  form.append("request", request);
  return form;
}
