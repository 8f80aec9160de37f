// One row: counts, the bars of its fill, its examples, the mask, and what a click on a token or a bar shows.

const exampleCard = (row, r, example, e, first, tell) => {
  const film = example.views.length > 0 && player(row, example, e, first, tell);
  const silent = example.failed === null && !example.branches.some(([, , , , learned]) => learned);
  const card = make("article", {
    class: `card example${example.failed === null ? "" : " failing"}`, id: `r${r}e${e}`, style: `--eh:${hue(e)}`,
  },
  make("h3", {}, swatch(hueOfDataset[example.dataset]), `example ${e}`,
    make("small", { class: "name" }, [example.dataset, example.id].filter(Boolean).join(" · ")),
    make("small", {}, `tokens ${number(example.start)}–${number(example.stop - 1)}`),
    example.failed !== null && make("em", { class: "badge" }, `failed: ${example.failed}`),
    silent && make("em", { class: "badge" }, "learns nothing")),
  film,
  row.branches.filter((part) => part.e === e).map((part) =>
    make("div", { class: "branch", id: part.id, style: `--h:${part.hue};--depth:${part.depth}` },
      make("h4", {}, make("b", {}, part.name), `${count(part.stop - part.start, "token")}, ${number(part.learned)} learned`),
      make("p", { class: "tokens" }, tokenSpans(row, part)))));
  card.film = film;
  return card;
};

const rowFacts = (row) => make("ul", { class: "facts" },
  fact(`${number(row.used)} of ${number(row.length)}`, `tokens, ${percent(row.used / row.length)} full`),
  fact(row.examples.length, plural(row.examples.length, "example")),
  fact(row.branches.length, plural(row.branches.length, "branch")),
  fact(number(row.learned), `learned targets, weight ${row.weight.toFixed(2)}`),
  Object.entries(row.budgets).map(([name, [used, all]]) => fact(`${number(used)} of ${number(all)}`, name)),
  fact(percent(row.allowed), "of pairs allowed"));

// Two bars, as long as they have tokens: examples above, in the colours of their datasets, and branches below.
const fillBars = (row, r) => {
  const stretch = (tag, size, attributes, ...children) => {
    const node = make(tag, attributes, ...children);
    node.style.flexGrow = size;
    return node;
  };
  const rest = row.length - row.used, off = (e) => (chosen(row.examples[e]) ? "" : " off");
  const gap = () => rest > 0 && stretch("span", rest, { class: "rest", title: `${number(rest)} × padding` });
  const examples = row.examples.map((example, e) => {
    const title = `example ${e}, ${example.dataset}: ${count(example.stop - example.start, "token")}`;
    const click = () => reveal(document.getElementById(`r${r}e${e}`), "start");
    const style = `--h:${hueOfDataset[example.dataset]}`;
    return stretch("button", example.stop - example.start, { class: `of${off(e)}`, title, click, style },
      [e, example.id].filter((name) => name !== null).join(" "));
  });
  const branches = row.branches.map((part) => {
    const title = `example ${part.e}, ${part.name}: ${count(part.stop - part.start, "token")}`;
    return stretch("button", part.stop - part.start,
      { class: `piece${off(part.e)}`, "data-branch": part.id, title, style: `--h:${part.hue}` }, part.name);
  });
  return [div("fill of-examples", examples, gap()), div("fill of-branches", branches, gap())];
};

// The mask with its axes: a strip of branches and the examples' numbers. Units of the SVG are tokens.
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
  " same image group, both directions. Down: queries; across: keys; numbers: examples; ",
  `one pixel ${row.block === 1 ? "a pair" : `${row.block} × ${row.block} pairs`}.`);

const reveal = (node, block = "nearest") => node?.scrollIntoView({ block });

// The section, with `clear()`, which ends what a click began. `tell(example, view)` hears of views chosen.
const rowSection = (row, r, at, tell) => {
  const shown = row.examples.map((_, e) => e).filter((e) => chosen(row.examples[e]));
  const cards = shown.map((e) => exampleCard(row, r, row.examples[e], e, at.example === e ? at.view : null, (v) => tell(e, v)));
  const hidden = row.examples.length - shown.length, rest = row.length - row.used;
  const mask = maskFigure(row), query = make("line", { class: "query", x1: 0, x2: row.length });
  const reading = make("p", { class: "reading", "aria-live": "polite" },
    "Point at the mask, or click a token to see what it sees.");
  const section = make("section", { class: "row", id: `row-${r}` },
    div("rowhead", make("h2", {}, `row ${r}`), rowFacts(row)), fillBars(row, r),
    div("columns",
      div("", cards,
        hidden > 0 && div("card padding hidden-examples", `${count(hidden, "example")} of other datasets`),
        rest > 0 && div("card padding", `${number(rest)} × padding`)),
      make("aside", { class: "card" }, make("h3", {}, "who sees whom"), mask, maskLegend(row), reading)),
    document.getElementById(`gradients-${r}`)?.cloneNode(true));
  const word = (i) => (i < row.used ? `${i} “${piece(row.stream.ids[i]).trim()}”` : `${i} (padding)`);

  mask.addEventListener("mousemove", (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(mask.getScreenCTM().inverse());
    const q = Math.floor(place.y), k = Math.floor(place.x);
    if (q < 0 || k < 0 || q >= row.length || k >= row.length) return;
    const why = rule(row, q, k);
    reading.textContent = `${word(q)} ${why ? "sees" : "does not see"} ${word(k)}${why ? `, ${why}` : ""}`;
  });

  section.clear = () => {
    section.classList.remove("picked", "focused");
    section.querySelectorAll(".asked, .on.branch, .on.piece").forEach((one) => one.classList.remove("asked", "on"));
    query.remove();
  };
  const focusBranch = (button) => {
    const branch = document.getElementById(button.dataset.branch);
    if (!branch) return; // of a dataset that is not shown
    section.classList.add("focused");
    button.classList.add("on");
    branch.classList.add("on");
    reveal(branch);
  };
  const askToken = (token) => {
    const q = +token.dataset.i;
    section.classList.add("picked");
    token.classList.add("asked");
    for (const other of section.querySelectorAll(".t")) {
      other.classList.toggle("seen", rule(row, q, +other.dataset.i) !== "");
    }
    query.setAttribute("y1", q + 0.5);
    query.setAttribute("y2", q + 0.5);
    mask.append(query);
    reading.textContent = `${word(q)} sees ${count(seenBy(row, q), "token")}`;
    const fold = foldAt(row, q);
    if (fold) token.closest(".example").film.showCrop?.(fold[2]);
  };
  section.addEventListener("click", (event) => {
    const target = event.target.closest(".t, .piece");
    if (!target) return;
    const again = target.matches(".asked, .on");
    section.clear();
    if (!again) (target.matches(".t") ? askToken : focusBranch)(target);
  });
  return section;
};
