// What the page shows. It is kept in the address: #row=2&dataset=cap&colour=weight&find=car&example=0&picture=3
import { hasDataset, rows } from "./data.js";

export const COLOURS = ["kind", "weight", "branch", "example"];
export const state = { row: 0, dataset: null, colour: "kind", find: "", example: null, picture: null };

export const isShown = (example) => state.dataset === null || example.dataset === state.dataset;
// The rows that have an example of the chosen dataset.
export const shownRows = () =>
  rows.map((_, r) => r).filter((r) => state.dataset === null || rows[r].examples.some(isShown));

const writeAddress = () => {
  const entries = Object.entries(state).filter(([, value]) => value !== null && value !== "" && value !== "kind");
  history.replaceState(null, "", `#${new URLSearchParams(entries)}`);
};

// `listener` is called after each change except selectPicture().
const listeners = [];
export const onChange = (listener) => listeners.push(listener);
export const setState = (changes) => {
  Object.assign(state, changes);
  const shown = shownRows();
  if (!shown.includes(state.row)) state.row = shown[0];
  writeAddress();
  listeners.forEach((listener) => listener());
};

export const readAddress = () => {
  const params = new URLSearchParams(location.hash.slice(1));
  const index = (name) => (/^\d+$/.test(params.get(name)) ? +params.get(name) : null);
  setState({
    row: Math.min(index("row") ?? 0, rows.length - 1),
    dataset: hasDataset(params.get("dataset")) ? params.get("dataset") : null,
    colour: COLOURS.includes(params.get("colour")) ? params.get("colour") : "kind",
    find: params.get("find") ?? "", example: index("example"), picture: index("picture"),
  });
};

export const showRow = (row) => setState({ row, example: null, picture: null });
export const stepRow = (by) => {
  const to = by > 0 ? shownRows().find((r) => r > state.row) : shownRows().findLast((r) => r < state.row);
  if (to !== undefined) showRow(to);
};
export const toggleDataset = (name) =>
  setState({ dataset: state.dataset === name ? null : name, example: null, picture: null });

// The player has already drawn the picture: only the address changes.
export const selectPicture = (example, picture) => {
  Object.assign(state, { example, picture });
  writeAddress();
};
