// The head of the page: totals, the table of datasets, which filters, and a bar for every row.
import { data, datasetHue, rows } from "./data.js";
import { div, fact, formatNumber, formatPercent, make, plural, sum, swatch } from "./elements.js";
import { onChange, showRow, shownRows, state, toggleDataset } from "./state.js";

const COLUMNS = ["dataset", "examples", "failed", "tokens", "supervised", "share"];

export const totals = () => {
  const all = rows.flatMap((row) => row.examples).length, length = sum(rows, (row) => row.length);
  const used = sum(rows, (row) => row.used), supervised = sum(rows, (row) => row.supervised);
  return make("ul", { class: "facts totals" },
    fact(formatNumber(rows.length), plural(rows.length, "row")), fact(formatNumber(all), plural(all, "example")),
    fact(formatPercent(used / length), "full"), fact(formatNumber(used), "tokens"),
    fact(formatNumber(supervised), `supervised, ${formatPercent(used && supervised / used)}`),
    fact(sum(rows, (row) => row.weight).toFixed(2), "loss weight"),
    fact(formatNumber(data.crop_images.length), plural(data.crop_images.length, "crop")),
    fact(formatNumber(sum(data.datasets, (dataset) => dataset.failed)), "failed"));
};

const datasetRow = (dataset) => {
  const all = sum(data.datasets, (other) => other.supervised), share = dataset.supervised / (all || 1);
  const h = datasetHue(dataset.name);
  return make("tr", { "data-dataset": dataset.name, click: () => toggleDataset(dataset.name) },
    make("td", {}, make("button", {}, swatch(h), dataset.name)), make("td", {}, formatNumber(dataset.examples)),
    make("td", { class: dataset.failed ? "failed" : "soft" }, formatNumber(dataset.failed)),
    make("td", {}, formatNumber(dataset.tokens)), make("td", {}, formatNumber(dataset.supervised)),
    make("td", { class: "share" },
      make("span", { class: "meter", style: `--h:${h}` }, make("i", { style: `width:${100 * share}%` })),
      make("span", {}, formatPercent(share))));
};
const rowButton = (row, r) => {
  const bar = row.examples.map(({ dataset, start, stop }) =>
    make("i", { "data-dataset": dataset, style: `--h:${datasetHue(dataset)};flex-grow:${stop - start}` }));
  return make("button", { class: "rowbar", click: () => showRow(r) }, make("span", {}, `row ${r}`),
    make("span", { class: "bar" }, bar, make("b", { style: `flex-grow:${row.length - row.used}` })),
    make("span", {}, formatPercent(row.used / row.length)));
};

export const overview = () => {
  const datasetRows = data.datasets.map(datasetRow), rowButtons = rows.map(rowButton);
  onChange(() => {
    const shown = shownRows();
    rowButtons.forEach((button, r) => {
      button.classList.toggle("on", r === state.row);
      button.classList.toggle("without", !shown.includes(r));
      for (const part of button.querySelectorAll(".bar i")) {
        part.classList.toggle("off", state.dataset !== null && part.dataset.dataset !== state.dataset);
      }
    });
    for (const line of datasetRows) {
      const pressed = line.dataset.dataset === state.dataset;
      line.classList.toggle("on", pressed);
      line.querySelector("button").setAttribute("aria-pressed", `${pressed}`);
    }
  });
  return div("overview",
    div("card", make("table", { class: "datasets" },
      make("thead", {}, make("tr", {}, COLUMNS.map((name) => make("th", {}, name)))), make("tbody", {}, datasetRows))),
    make("nav", { class: "card" }, rowButtons));
};
