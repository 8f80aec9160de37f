// What everything else is made with: the data, elements, numbers as people read them, and hues.
// Texts of records are data: elements are made of tags, attributes and text nodes, never of markup.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const SIDE = 378; // pixels of a crop, units of its SVG

const DRAWN = new Set(["svg", "image", "g", "circle", "path", "rect", "line", "text"]);

// make("p", { class: "a", click: listener }, "text", element, [more]); false and null stand for nothing.
const make = (tag, attributes = {}, ...children) => {
  const svg = "http://www.w3.org/2000/svg";
  const node = DRAWN.has(tag) ? document.createElementNS(svg, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child != null && child !== false));
  return node;
};
const div = (name, ...children) => make("div", { class: name }, ...children);
const fact = (value, name) => make("li", {}, make("b", {}, `${value}`), ` ${name}`);
const swatch = (h) => make("i", { class: "swatch", style: `--h:${h}` });

const number = (n) => n.toLocaleString("en");
const percent = (x) => `${(100 * x).toFixed(1)}%`;
const plural = (n, word) => (n === 1 ? word : word + (word.endsWith("ch") ? "es" : "s"));
const count = (n, word) => `${number(n)} ${plural(n, word)}`;
const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);

// Hues far apart, however many there are.
const hue = (n, first = 200) => Math.round(first + n * 137.5) % 360;
const hueOfDataset = Object.fromEntries(data.datasets.map((one, n) => [one.name, hue(n, 40)]));
const hueOfObject = (n) => hue(n, 20);

// Every branch of a row, with its example e, its place b in it, its colour and its id in the page.
rows.forEach((row, r) => {
  row.branches = row.examples.flatMap((example, e) =>
    example.branches.map(([name, start, stop, depth, learned], b) => ({ e, b, name, start, stop, depth, learned })));
  row.branches.forEach((part, n) => Object.assign(part, { hue: hue(n), id: `r${r}e${part.e}b${part.b}` }));
});
