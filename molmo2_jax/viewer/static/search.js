// Search: every occurrence in a branch or an id, in all rows. Those in the row on the screen are highlighted.
import { rows } from "./data.js";
import { make, scrollToNode } from "./elements.js";
import { isShown, setState, showRow, state } from "./state.js";
import { entryAt, tokenText } from "./tokens.js";

export const searchInput = make("input", {
  type: "search", placeholder: "search text and ids ( / )", "aria-label": "search",
  input: () => setState({ find: searchInput.value }),
});
const countText = make("span", { class: "hits" });
export const searchBox = make("label", { class: "search" }, searchInput, countText);

let hits = []; // { r, e, first token, last token }; tokens are -1 for a hit in an id
let currentHit = -1;
let searched = null; // what `hits` belongs to

// The text of a branch without its runs of <im_patch>, and the [offset, token] of each of its tokens.
const branchText = (row, branch) => branch.text ??= (() => {
  const stops = new Map(row.stream.folds), texts = [], offsets = [];
  let length = 0;
  for (let i = branch.start; i < branch.stop; i = stops.get(i) ?? i + 1) {
    if (stops.has(i)) continue;
    const text = tokenText(row.stream.ids[i]).toLowerCase();
    offsets.push([length, i]);
    texts.push(text);
    length += text.length;
  }
  return [texts.join(""), offsets];
})();

const findHits = (needle) => {
  const found = [];
  if (needle === "") return found;
  rows.forEach((row, r) => row.examples.forEach((example, e) => {
    if (!isShown(example)) return;
    if (example.id?.toLowerCase().includes(needle)) found.push({ r, e, first: -1, last: -1 });
    for (const branch of row.branches.filter((one) => one.e === e)) {
      const [text, offsets] = branchText(row, branch);
      for (let i = text.indexOf(needle); i >= 0; i = text.indexOf(needle, i + needle.length)) {
        found.push({ r, e, first: entryAt(offsets, i)[1], last: entryAt(offsets, i + needle.length - 1)[1] });
      }
    }
  }));
  return found;
};

const highlightHits = () => {
  const here = hits.filter(({ r }) => r === state.row), current = hits[currentHit], marked = new Set();
  for (const { first, last } of here) for (let i = first; i <= last; i++) marked.add(i);
  for (const token of document.querySelectorAll(".row .t")) {
    const i = +token.dataset.i;
    token.classList.toggle("hit", marked.has(i));
    token.classList.toggle("now", current?.r === state.row && current.first <= i && i <= current.last);
  }
  const all = `${here.length} here, ${hits.length} in all`;
  countText.textContent = state.find === "" ? "" : currentHit < 0 ? all : `${currentHit + 1} of ${hits.length}`;
};

// To be called when the row on the screen is drawn: search again if need be, and highlight.
export const updateSearch = () => {
  const query = JSON.stringify([state.dataset, state.find]);
  if (query !== searched) {
    hits = findHits(state.find.toLowerCase());
    currentHit = -1;
    searched = query;
  }
  highlightHits();
  if (document.activeElement !== searchInput) searchInput.value = state.find;
};

const nextHit = (by) => {
  if (!hits.length) return;
  const ahead = hits.findIndex(({ r }) => r >= state.row);
  const from = currentHit >= 0 ? currentHit + by : by > 0 ? ahead : (ahead < 0 ? hits.length : ahead) - 1;
  const to = (Math.max(from, -1) + hits.length) % hits.length, { r, e } = hits[to];
  if (r !== state.row) showRow(r);
  currentHit = to;
  highlightHits();
  scrollToNode(document.querySelector(".row .t.now") ?? document.querySelector(`#r${r}e${e} h3`));
};
searchInput.addEventListener("keydown", (event) => {
  if (event.key === "Enter") nextHit(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") {
    searchInput.value = "";
    searchInput.blur();
    setState({ find: "" });
  }
});
