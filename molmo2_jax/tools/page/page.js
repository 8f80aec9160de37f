// The page: totals, datasets that filter, rows to walk, search, answers, and the address that says what is looked at.

const COLOURS = ["kind", "weight", "branch", "example"];
const state = { row: 0, dataset: null, colour: "kind", find: "", example: null, view: null };

const readAddress = () => {
  const said = new URLSearchParams(location.hash.slice(1));
  const whole = (name) => (/^\d+$/.test(said.get(name)) ? +said.get(name) : null);
  return {
    row: Math.min(whole("row") ?? 0, rows.length - 1),
    dataset: Object.hasOwn(hueOfDataset, said.get("dataset")) ? said.get("dataset") : null,
    colour: COLOURS.includes(said.get("colour")) ? said.get("colour") : "kind",
    find: said.get("find") ?? "", example: whole("example"), view: whole("view"),
  };
};
const writeAddress = () => {
  const said = Object.entries(state).filter(([, value]) => value !== null && value !== "" && value !== "kind");
  history.replaceState(null, "", `#${new URLSearchParams(said)}`);
};

const chosen = (example) => state.dataset === null || example.dataset === state.dataset;
const walkable = () => rows.map((_, r) => r).filter((r) => state.dataset === null || rows[r].examples.some(chosen));
const tell = (example, view) => {
  Object.assign(state, { example, view });
  writeAddress();
};
const toRow = (row) => go({ row, example: null, view: null });
const step = (by) => {
  const to = by > 0 ? walkable().find((r) => r > state.row) : walkable().findLast((r) => r < state.row);
  if (to !== undefined) toRow(to);
};
const filter = (name) => go({ dataset: state.dataset === name ? null : name, example: null, view: null });

// Answers, each with the views that have points of the annotated or of the generated one.
const answerCard = (answer) => {
  const [r, e] = answer.place ?? [], row = rows[r], views = row?.examples[e].views ?? [];
  const sides = ["annotated", "generated"].map((side) => div(side,
    make("h4", {}, `${side === "annotated" ? "○" : "×"} ${side}`),
    make("p", {}, answer[side].parts.map(([text, differs]) => (differs ? make("mark", {}, text) : text)))));
  const green = () => 142;
  const shots = views.flatMap((view, v) => {
    const theirs = pointsOn(answer.generated.tags, v);
    if (!theirs.length && !pointsOn(answer.annotated.tags, v).length) return [];
    const crosses = theirs.map(([, , x, y]) => make("path",
      { class: "cross", d: `M${x * SIDE - 9} ${y * SIDE - 9}l18 18M${x * SIDE - 9} ${y * SIDE + 9}l18 -18` }));
    return make("figure", {},
      canvas("small", SIDE, SIDE, picture(row, view.crop), marksOn(answer.annotated.tags, v, SIDE, SIDE, false, green), crosses),
      make("figcaption", {}, view.caption));
  });
  return make("article", { class: `card answer ${answer.equal ? "equal" : "unequal"}` },
    make("h3", {}, answer.prompt, make("span", { class: "verdict" }, answer.equal ? "equal" : "different")),
    div("pair", sides), div("shots", shots));
};
const answers = () => {
  const equal = `${sum(data.answers, (one) => +one.equal)} of ${data.answers.length}`;
  return make("details", { class: "answers", open: true },
    make("summary", {}, `${equal} generated answers equal the annotated ones`), data.answers.map(answerCard));
};

const totals = () => {
  const all = rows.flatMap((row) => row.examples).length, length = sum(rows, (row) => row.length);
  const used = sum(rows, (row) => row.used), learned = sum(rows, (row) => row.learned);
  return make("ul", { class: "facts totals" },
    fact(number(rows.length), plural(rows.length, "row")), fact(number(all), plural(all, "example")),
    fact(percent(used / length), "full"), fact(number(used), "tokens"),
    fact(number(learned), `learned, ${percent(used && learned / used)}`),
    fact(sum(rows, (row) => row.weight).toFixed(2), "loss weight"),
    fact(number(data.pictures.length), plural(data.pictures.length, "crop")),
    fact(number(sum(data.datasets, (one) => one.failed)), "failed"));
};
const datasetRow = (one) => {
  const share = one.learned / (sum(data.datasets, (other) => other.learned) || 1), h = hueOfDataset[one.name];
  return make("tr", { "data-dataset": one.name, click: () => filter(one.name) },
    make("td", {}, make("button", {}, swatch(h), one.name)), make("td", {}, number(one.examples)),
    make("td", { class: one.failed ? "failed" : "soft" }, number(one.failed)), make("td", {}, number(one.tokens)),
    make("td", {}, number(one.learned)), make("td", { class: "share" },
      make("span", { class: "meter", style: `--h:${h}` }, make("i", { style: `width:${100 * share}%` })),
      make("span", {}, percent(share))));
};
const rowBar = (row, r) => {
  const bar = row.examples.map(({ dataset, start, stop }) =>
    make("i", { "data-dataset": dataset, style: `--h:${hueOfDataset[dataset]};flex-grow:${stop - start}` }));
  return make("button", { class: "rowbar", click: () => toRow(r) }, make("span", {}, `row ${r}`),
    make("span", { class: "bar" }, bar, make("b", { style: `flex-grow:${row.length - row.used}` })),
    make("span", {}, percent(row.used / row.length)));
};

const datasetRows = data.datasets.map(datasetRow), rowBars = rows.map(rowBar);
const columns = ["dataset", "examples", "failed", "tokens", "loss tokens", "share of them"];
const walker = (name, title, sign, by) =>
  make("button", { class: `step ${name}`, title, "aria-label": `${name} row`, click: () => step(by) }, sign);
const back = walker("previous", "← or k", "←", -1), next = walker("next", "→ or j", "→", 1);
const where = make("span", { class: "where", "aria-live": "polite" });
const chip = make("button", { class: "chip", title: "show all datasets", click: () => filter(state.dataset) });
const switches = COLOURS.map((colour) => make("button", { "data-colour": colour, click: () => go({ colour }) }, colour));
const find = make("input", {
  type: "search", placeholder: "search text and ids ( / )", "aria-label": "search", input: () => go({ find: find.value }),
});
const found = make("span", { class: "found" }), stand = div("");
document.querySelector("main").append(
  make("h1", {}, document.title), totals(),
  make("p", { class: "notice" },
    data.side < SIDE && make("b", { class: "smaller" },
      `Crops are shown at ${data.side} × ${data.side} of their ${SIDE} × ${SIDE} pixels. `),
    "Underlined tokens carry loss, the darker the heavier: each learns the token after it. Click a token to see what it ",
    "sees, a branch of the bar to see it alone; Esc ends both."),
  div("overview",
    div("card", make("table", { class: "datasets" },
      make("thead", {}, make("tr", {}, columns.map((name) => make("th", {}, name)))), make("tbody", {}, datasetRows))),
    make("nav", { class: "card" }, rowBars)),
  ...(data.answers.length ? [answers()] : []),
  div("tools",
    div("walk", back, where, next),
    make("div", { class: "switch", role: "group", "aria-label": "colour of tokens" },
      make("span", { class: "soft" }, "colour by"), switches),
    chip, make("label", { class: "search" }, find, found)),
  stand);

// Search: every place in a branch or an id, in all rows; those of the row on the screen are coloured.
let hits = [], hit = -1, searched = null, drawn = null;

// [its text, [[offset, token], ...]] of a branch, without the runs of <im_patch>.
const textOf = (row, part) => part.text ??= (() => {
  const stops = new Map(row.stream.folds), pieces = [], offsets = [];
  let length = 0;
  for (let i = part.start; i < part.stop; i = stops.get(i) ?? i + 1) {
    if (stops.has(i)) continue;
    const one = piece(row.stream.ids[i]).toLowerCase();
    offsets.push([length, i]);
    pieces.push(one);
    length += one.length;
  }
  return [pieces.join(""), offsets];
})();
const search = () => {
  const needle = state.find.toLowerCase();
  [hits, hit] = [[], -1];
  if (needle === "") return;
  rows.forEach((row, r) => row.examples.forEach((example, e) => {
    if (!chosen(example)) return;
    if (example.id?.toLowerCase().includes(needle)) hits.push({ r, e, first: -1, last: -1 });
    for (const part of row.branches.filter((one) => one.e === e)) {
      const [text, offsets] = textOf(row, part);
      for (let i = text.indexOf(needle); i >= 0; i = text.indexOf(needle, i + needle.length)) {
        hits.push({ r, e, first: lastFrom(offsets, i)[1], last: lastFrom(offsets, i + needle.length - 1)[1] });
      }
    }
  }));
};
const markHits = () => {
  const here = hits.filter(({ r }) => r === state.row), now = hits[hit], marked = new Set();
  for (const { first, last } of here) for (let i = first; i <= last; i++) marked.add(i);
  for (const token of stand.querySelectorAll(".t")) {
    const i = +token.dataset.i;
    token.classList.toggle("hit", marked.has(i));
    token.classList.toggle("now", now?.r === state.row && now.first <= i && i <= now.last);
  }
  const all = `${here.length} here, ${hits.length} in all`;
  found.textContent = state.find === "" ? "" : hit < 0 ? all : `${hit + 1} of ${hits.length}`;
};
const nextHit = (by) => {
  if (!hits.length) return;
  const ahead = hits.findIndex(({ r }) => r >= state.row);
  const from = hit >= 0 ? hit + by : by > 0 ? ahead : (ahead < 0 ? hits.length : ahead) - 1;
  const to = (Math.max(from, -1) + hits.length) % hits.length, { r, e } = hits[to];
  if (r !== state.row) toRow(r);
  hit = to;
  markHits();
  reveal(stand.querySelector(".t.now") ?? document.querySelector(`#r${r}e${e} h3`));
};

// The one way to change what is shown: the address follows, and what depends on the change is drawn again.
const go = (changes) => {
  Object.assign(state, changes);
  const among = walkable();
  if (!among.includes(state.row)) state.row = among[0];
  writeAddress();
  const view = JSON.stringify([state.row, state.dataset]), sought = JSON.stringify([state.dataset, state.find]);
  if (view !== drawn) {
    const section = rowSection(rows[state.row], state.row, state, tell);
    stand.replaceChildren(section);
    drawn = view;
  }
  if (sought !== searched) search();
  searched = sought;
  markHits();
  stand.className = `by-${state.colour}`;
  where.textContent = `row ${state.row} · ${among.indexOf(state.row) + 1} of ${among.length}`;
  back.disabled = state.row === among[0];
  next.disabled = state.row === among.at(-1);
  chip.hidden = state.dataset === null;
  chip.textContent = `${state.dataset} ×`;
  if (document.activeElement !== find) find.value = state.find;
  switches.forEach((one) => one.setAttribute("aria-pressed", `${one.dataset.colour === state.colour}`));
  rowBars.forEach((one, r) => {
    one.classList.toggle("on", r === state.row);
    one.classList.toggle("without", !among.includes(r));
  });
  for (const one of datasetRows) {
    const pressed = one.dataset.dataset === state.dataset;
    one.classList.toggle("on", pressed);
    one.querySelector("button").setAttribute("aria-pressed", `${pressed}`);
  }
  for (const one of document.querySelectorAll(".bar i")) {
    one.classList.toggle("off", state.dataset !== null && one.dataset.dataset !== state.dataset);
  }
};

addEventListener("keydown", (event) => {
  if (event.target === find) {
    if (event.key === "Enter") nextHit(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") {
      find.value = "";
      find.blur();
      go({ find: "" });
    }
    return;
  }
  if (event.key === "Escape") stand.firstChild.clear();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input")) return;
  if (event.key === "ArrowRight" || event.key === "j") step(1);
  if (event.key === "ArrowLeft" || event.key === "k") step(-1);
  if (event.key === "/") {
    event.preventDefault();
    find.focus();
  }
});

// A token's numbers, at once and in a fixed font.
const tip = make("div", { id: "tip" });
addEventListener("mouseover", (event) => {
  const token = event.target.closest(".row .t");
  if (!token) return tip.remove();
  tip.textContent = tokenTip(rows[state.row], +token.dataset.i, +token.dataset.j);
  document.body.append(tip);
  const box = token.getBoundingClientRect(), below = box.bottom + tip.offsetHeight + 8 <= innerHeight;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? box.bottom + 6 : box.top - tip.offsetHeight - 6}px`;
});

const arrive = () => {
  drawn = null;
  go(readAddress());
  if (state.example !== null) reveal(document.getElementById(`r${state.row}e${state.example}`), "start");
};
addEventListener("hashchange", arrive);
arrive();
