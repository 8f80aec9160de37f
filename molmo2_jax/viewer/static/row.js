// One row: counts, bars of its examples and branches, the examples, the mask, and the selection of a token or branch.
import { datasetHue, exampleHue } from "./data.js";
import { div, fact, formatCount, formatNumber, formatPercent, make, plural, scrollToNode, swatch } from "./elements.js";
import { makePlayer } from "./player.js";
import { isShown, selectPicture, state } from "./state.js";
import { attentionRule, countAllowed, foldAt, tokenSpans, tokenText } from "./tokens.js";

const exampleCard = (row, r, example, e) => {
  const first = state.example === e ? state.picture : null;
  const player = example.pictures.length > 0 && makePlayer(row, example, e, first, (p) => selectPicture(e, p));
  const branches = row.branches.filter((branch) => branch.e === e);
  const withoutLoss = example.failed === null && !branches.some(({ supervised }) => supervised);
  const card = make("article", {
    class: `card example${example.failed === null ? "" : " failing"}`, id: `r${r}e${e}`, style: `--eh:${exampleHue(e)}`,
  },
  make("h3", {}, swatch(datasetHue(example.dataset)), `example ${e}`,
    make("small", { class: "name" }, [example.dataset, example.id].filter(Boolean).join(" · ")),
    make("small", {}, `tokens ${formatNumber(example.start)}–${formatNumber(example.stop - 1)}`),
    example.failed !== null && make("em", { class: "badge" }, `failed: ${example.failed}`),
    withoutLoss && make("em", { class: "badge" }, "no loss")),
  player,
  branches.map((branch) =>
    make("div", { class: "branch", id: branch.id, style: `--h:${branch.hue};--depth:${branch.depth}` },
      make("h4", {}, make("b", {}, branch.name),
        `${formatCount(branch.stop - branch.start, "token")}, ${formatNumber(branch.supervised)} supervised`),
      make("p", { class: "tokens" }, tokenSpans(row, branch)))));
  card.player = player;
  return card;
};

const rowFacts = (row) => make("ul", { class: "facts" },
  fact(`${formatNumber(row.used)} of ${formatNumber(row.length)}`,
    `tokens, ${formatPercent(row.used / row.length)} full`),
  fact(row.examples.length, plural(row.examples.length, "example")),
  fact(row.branches.length, plural(row.branches.length, "branch")),
  fact(formatNumber(row.supervised), `supervised targets, weight ${row.weight.toFixed(2)}`),
  Object.entries(row.budgets).map(([name, [used, all]]) => fact(`${formatNumber(used)} of ${formatNumber(all)}`, name)),
  fact(formatPercent(row.allowed), "of pairs allowed"));

// Two bars with lengths in tokens: examples in the hues of their datasets, and their branches below.
const rowBars = (row, r) => {
  const stretch = (tag, size, attributes, ...children) => {
    const node = make(tag, attributes, ...children);
    node.style.flexGrow = size;
    return node;
  };
  const unused = row.length - row.used, off = (e) => (isShown(row.examples[e]) ? "" : " off");
  const padding = () =>
    unused > 0 && stretch("span", unused, { class: "unused", title: `${formatNumber(unused)} × padding` });
  const examples = row.examples.map((example, e) => {
    const title = `example ${e}, ${example.dataset}: ${formatCount(example.stop - example.start, "token")}`;
    const click = () => scrollToNode(document.getElementById(`r${r}e${e}`), "start");
    const style = `--h:${datasetHue(example.dataset)}`;
    return stretch("button", example.stop - example.start, { class: `of${off(e)}`, title, click, style },
      [e, example.id].filter((name) => name !== null).join(" "));
  });
  const branches = row.branches.map((branch) => {
    const title = `example ${branch.e}, ${branch.name}: ${formatCount(branch.stop - branch.start, "token")}`;
    return stretch("button", branch.stop - branch.start,
      { class: `piece${off(branch.e)}`, "data-branch": branch.id, title, style: `--h:${branch.hue}` }, branch.name);
  });
  return [div("fill of-examples", examples, padding()), div("fill of-branches", branches, padding())];
};

// The mask with its axes: a strip of branches, and the indices of examples. Units of the SVG are tokens.
const maskFigure = (row) => {
  const { length, block } = row, margin = length * 0.06, bar = margin * 0.35, side = Math.ceil(length / block) * block;
  const strips = row.branches.flatMap(({ start, stop, hue: h }) => [
    make("rect", { x: -bar, y: start, width: bar, height: stop - start, fill: `hsl(${h} 65% 55%)` }),
    make("rect", { x: start, y: -bar, width: stop - start, height: bar, fill: `hsl(${h} 65% 55%)` }),
  ]);
  const style = `font-size:${margin * 0.5}px`;
  const names = row.examples.flatMap(({ start, stop }, e) => (stop - start < margin * 0.4 ? [] : [
    make("text", { x: (start + stop) / 2, y: -margin * 0.5, style }, `${e}`),
    make("text", { x: -margin * 0.7, y: (start + stop) / 2 + margin * 0.17, style }, `${e}`),
  ]));
  return make("svg", { class: "mask", viewBox: `${-margin} ${-margin} ${length + margin} ${length + margin}` },
    make("image", { class: "pairs", width: side, height: side, preserveAspectRatio: "none", href: row.mask }),
    make("rect", { class: "frame", width: length, height: length }), strips, names);
};
const maskLegend = (row) => make("p", { class: "legend" },
  make("span", { class: "causal" }), " causal ", make("span", { class: "bidirectional" }),
  " same image group, both directions. Rows are queries, columns are keys, numbers are examples; one pixel is ",
  `${row.block === 1 ? "one pair" : `${row.block} × ${row.block} pairs`}.`);

// The section of a row, with `clear()`, which undoes the selection of a token or branch.
export const rowSection = (row, r) => {
  const cards = row.examples.flatMap((example, e) => (isShown(example) ? [exampleCard(row, r, example, e)] : []));
  const hidden = row.examples.length - cards.length, unused = row.length - row.used;
  const mask = maskFigure(row), queryLine = make("line", { class: "query", x1: 0, x2: row.length });
  const maskText = make("p", { class: "mask-text", "aria-live": "polite" },
    "Point at the mask for one pair, or click a token for all that it attends to.");
  const section = make("section", { class: "row", id: `row-${r}` },
    div("rowhead", make("h2", {}, `row ${r}`), rowFacts(row)), rowBars(row, r),
    div("columns",
      div("", cards,
        hidden > 0 && div("card padding hidden-examples", `${formatCount(hidden, "example")} of other datasets`),
        unused > 0 && div("card padding", `${formatNumber(unused)} × padding`)),
      make("aside", { class: "card" }, make("h3", {}, "attention mask"), mask, maskLegend(row), maskText)),
    document.getElementById(`gradients-${r}`)?.cloneNode(true));
  const named = (i) => (i < row.used ? `${i} “${tokenText(row.stream.ids[i]).trim()}”` : `${i} (padding)`);

  mask.addEventListener("mousemove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(mask.getScreenCTM().inverse());
    const q = Math.floor(point.y), k = Math.floor(point.x);
    if (q < 0 || k < 0 || q >= row.length || k >= row.length) return;
    const why = attentionRule(row, q, k);
    maskText.textContent =
      `${named(q)} ${why ? "attends to" : "does not attend to"} ${named(k)}${why ? `, ${why}` : ""}`;
  });

  section.clear = () => {
    section.classList.remove("token-selected", "branch-selected");
    section.querySelectorAll(".query-token, .on.branch, .on.piece")
      .forEach((one) => one.classList.remove("query-token", "on"));
    queryLine.remove();
  };
  const selectBranch = (button) => {
    const branch = document.getElementById(button.dataset.branch);
    if (!branch) return; // its dataset is not shown
    section.classList.add("branch-selected");
    button.classList.add("on");
    branch.classList.add("on");
    scrollToNode(branch);
  };
  const selectToken = (token) => {
    const q = +token.dataset.i;
    section.classList.add("token-selected");
    token.classList.add("query-token");
    for (const other of section.querySelectorAll(".t")) {
      other.classList.toggle("key-token", attentionRule(row, q, +other.dataset.i) !== "");
    }
    queryLine.setAttribute("y1", q + 0.5);
    queryLine.setAttribute("y2", q + 0.5);
    mask.append(queryLine);
    maskText.textContent = `${named(q)} attends to ${formatCount(countAllowed(row, q), "token")}`;
    const fold = foldAt(row, q);
    if (fold) token.closest(".example").player.showCrop?.(fold[2]);
  };
  section.addEventListener("click", (event) => {
    const target = event.target.closest(".t, .piece");
    if (!target) return;
    const again = target.matches(".query-token, .on");
    section.clear();
    if (!again) (target.matches(".t") ? selectToken : selectBranch)(target);
  });
  return section;
};
