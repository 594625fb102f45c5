/** Files: how they get to the page, and what they are. */

import { at } from "./dom.js";

const KINDS = ["image", "audio", "video", "text"]; // as in the media types of files
const ENDINGS = {
  npy: "series", flac: "audio", ogg: "audio", opus: "audio", wav: "audio", md: "text", txt: "text", jsonl: "text",
};

/** Call `add(files)` with what is dropped anywhere on the page, pasted or chosen. */
export function readyFiles(add) {
  const curtain = at("curtain");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  at("choose").onclick = at("drop").onclick = () => at("file").click();
  at("file").onchange = () => {
    add([...at("file").files]);
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
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    add([...event.clipboardData.files]);
  });
}

/** Return the modalities that a file may be of: those of its type, or if there are none all that can be searched by. */
export function modalitiesOf(file, modalities) {
  const all = Object.keys(modalities).filter((name) => modalities[name].queries);
  const type = file.type.split("/")[0];
  const kind = KINDS.includes(type) ? type : ENDINGS[file.name.split(".").at(-1).toLowerCase()];
  const fit = all.filter((name) => modalities[name].kind === kind);
  return fit.length ? fit : all;
}

/** Make a part of a file; what it is of is left open if it may be of several modalities. */
export function partOfFile(file, modalities) {
  const fit = modalitiesOf(file, modalities);
  return { by: fit.length === 1 ? fit[0] : "", file, weight: 1 };
}
