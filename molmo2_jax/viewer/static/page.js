// The page: its parts from top to bottom, the row on the screen, keys and tooltips.
import { answersSection } from "./answers.js";
import { CROP_SIZE, data, rows } from "./data.js";
import { div, make, scrollToNode } from "./elements.js";
import { overview, totals } from "./overview.js";
import { rowSection } from "./row.js";
import { searchBox, searchInput, updateSearch } from "./search.js";
import { COLOURS, onChange, readAddress, setState, shownRows, state, stepRow, toggleDataset } from "./state.js";
import { tokenDetails } from "./tokens.js";

const stepButton = (name, title, sign, by) =>
  make("button", { class: `step ${name}`, title, "aria-label": `${name} row`, click: () => stepRow(by) }, sign);
const previous = stepButton("previous", "← or k", "←", -1);
const next = stepButton("next", "→ or j", "→", 1);
const rowCount = make("span", { class: "row-count", "aria-live": "polite" });
const datasetChip =
  make("button", { class: "chip", title: "show all datasets", click: () => toggleDataset(state.dataset) });
const colourButtons =
  COLOURS.map((colour) => make("button", { "data-colour": colour, click: () => setState({ colour }) }, colour));
const rowHost = div("");

document.querySelector("main").append(
  make("h1", {}, document.title), totals(),
  make("p", { class: "notice" },
    data.image_size < CROP_SIZE && make("b", { class: "smaller" },
      `Crops are shown at ${data.image_size} × ${data.image_size} pixels, not ${CROP_SIZE} × ${CROP_SIZE}. `),
    "The target of an underlined token, which is the next token, is supervised; a darker line is a larger weight. ",
    "Click a token to see what it attends to, or a branch of the bar to see it alone; Esc ends both."),
  overview(),
  ...[answersSection()].filter(Boolean),
  div("tools",
    div("walk", previous, rowCount, next),
    make("div", { class: "switch", role: "group", "aria-label": "colour of tokens" },
      make("span", { class: "soft" }, "colour by"), colourButtons),
    datasetChip, searchBox),
  rowHost);

let drawn = null; // the row and dataset that rowHost shows
onChange(() => {
  const shown = shownRows(), wanted = JSON.stringify([state.row, state.dataset]);
  if (wanted !== drawn) rowHost.replaceChildren(rowSection(rows[state.row], state.row));
  drawn = wanted;
  updateSearch();
  rowHost.className = `by-${state.colour}`;
  rowCount.textContent = `row ${state.row} · ${shown.indexOf(state.row) + 1} of ${shown.length}`;
  previous.disabled = state.row === shown[0];
  next.disabled = state.row === shown.at(-1);
  datasetChip.hidden = state.dataset === null;
  datasetChip.textContent = `${state.dataset} ×`;
  colourButtons.forEach((button) => button.setAttribute("aria-pressed", `${button.dataset.colour === state.colour}`));
});

addEventListener("keydown", (event) => {
  if (event.target === searchInput) return;
  if (event.key === "Escape") rowHost.firstChild.clear();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input")) return;
  if (event.key === "ArrowRight" || event.key === "j") stepRow(1);
  if (event.key === "ArrowLeft" || event.key === "k") stepRow(-1);
  if (event.key === "/") {
    event.preventDefault();
    searchInput.focus();
  }
});

// Our own tooltip for tokens: it appears at once, in a fixed-width font.
const tooltip = make("div", { id: "tip" });
addEventListener("mouseover", (event) => {
  const token = event.target.closest(".row .t");
  if (!token) return tooltip.remove();
  tooltip.textContent = tokenDetails(rows[state.row], +token.dataset.i, +token.dataset.j);
  document.body.append(tooltip);
  const box = token.getBoundingClientRect(), below = box.bottom + tooltip.offsetHeight + 8 <= innerHeight;
  tooltip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tooltip.offsetWidth - 8))}px`;
  tooltip.style.top = `${below ? box.bottom + 6 : box.top - tooltip.offsetHeight - 6}px`;
});

const showAddress = () => {
  drawn = null;
  readAddress();
  if (state.example !== null) scrollToNode(document.getElementById(`r${state.row}e${state.example}`), "start");
};
addEventListener("hashchange", showAddress);
showAddress();
