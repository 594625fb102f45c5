/** What narrows a search down. */

import { at, counted, make } from "./dom.js";
import { COUNTS, EMPTY, searched, withItems } from "./query.js";

/** Make the filters work; `go(changes)` is called with what shall be different in the query. */
export function readyFilters(go) {
  at("filters").onsubmit = (event) => event.preventDefault();
  at("fold-filters").onclick = () => openFilters(at("fold-filters").ariaExpanded !== "true");
  at("least").oninput = () => {
    tellLeast(Number(at("least").value));
    go({ least: Number(at("least").value) }, { isTyping: true });
  };
  at("where").onchange = () => go({ where: at("where").value.trim() });
  at("where-example").onclick = () => go({ where: at("where-example").textContent });
  at("count").onchange = () => go({ k: Number(at("count").value) });
  at("one-per-group").onchange = () => go({ onePerGroup: at("one-per-group").checked });
  at("fold").onchange = () => go({ fold: at("fold").checked });
  at("count").replaceChildren(...COUNTS.map((count) => make("option", {}, String(count))));
}

/** Show the filters of a query. */
export function showFilters(query, modalities, go) {
  const found = searched(query, modalities);
  const choice = (label, isOn, isImplied, title, among) =>
    make("button", {
      type: "button",
      className: isImplied ? "choice is-implied" : "choice",
      "aria-pressed": String(isOn),
      title,
      onclick: () => go({ among: among() }),
    }, label);
  keepingFocus(at("among"), () =>
    at("among").replaceChildren(
      choice("automatic", !query.among.length, false, "All but the modality of the first part of the query", () => []),
      ...withItems(modalities).map((name) => {
        const isOn = query.among.includes(name);
        const other = () => (isOn ? query.among.filter((one) => one !== name) : [...query.among, name]);
        const isImplied = !query.among.length && found.includes(name);
        const title = `${counted(modalities[name].items)} items${isImplied ? ", searched now" : ""}`;
        return choice(name, isOn, isImplied, title, other);
      }),
    ),
  );
  at("least").value = query.least;
  tellLeast(query.least);
  if (document.activeElement !== at("where")) at("where").value = query.where;
  at("count").value = query.k;
  at("one-per-group").checked = query.onePerGroup;
  at("fold").checked = query.fold;
  const isOn = [query.among.length, query.where, query.onePerGroup, query.fold, query.least, query.k !== EMPTY.k];
  const count = isOn.filter(Boolean).length;
  at("filters-on").textContent = count ? ` · ${count}` : "";
}

/** Say beside the condition what is wrong with it, or nothing. */
export function tellWhere(message) {
  at("where-wrong").textContent = message;
  at("where-wrong").hidden = !message;
  at("where").setAttribute("aria-invalid", String(Boolean(message)));
  if (message) openFilters(true);
}

/** Give a condition that holds of this answer as the example, since what may be asked differs from index to index. */
export function giveExample(hit) {
  const isShort = ([, value]) => value !== null && String(value).length < 40;
  const [name, value] = Object.entries(hit.metadata).find(isShort) ?? ["group", hit.group];
  const field = /^[A-Za-z_]\w*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
  const example = typeof value === "string" ? `${field} = '${value.replaceAll("'", "''")}'` : `${field} = ${value}`;
  at("where-example").textContent = example;
  at("where").placeholder = example;
}

function openFilters(isOpen) {
  at("fold-filters").ariaExpanded = String(isOpen);
}

function tellLeast(least) {
  const number = `${Math.round(least * 100)} %`;
  at("least-told").textContent = least ? `≥ ${number}` : "any";
  at("least").setAttribute("aria-valuetext", least ? `${number} or more` : "any");
}

function keepingFocus(box, change) {
  const place = [...box.children].indexOf(document.activeElement);
  change();
  box.children[place]?.focus();
}
