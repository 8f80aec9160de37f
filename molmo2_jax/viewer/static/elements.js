// Elements and formatted numbers. Strings of records are data: they become text nodes or attributes, never markup.

const SVG_TAGS = new Set(["svg", "image", "g", "circle", "path", "rect", "line", "text"]);

// make("p", { class: "a", click: listener }, "text", element, [more]); children that are false or null are skipped.
export const make = (tag, attributes = {}, ...children) => {
  const svg = "http://www.w3.org/2000/svg";
  const node = SVG_TAGS.has(tag) ? document.createElementNS(svg, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child != null && child !== false));
  return node;
};
export const div = (name, ...children) => make("div", { class: name }, ...children);
export const fact = (value, name) => make("li", {}, make("b", {}, `${value}`), ` ${name}`);
export const swatch = (h) => make("i", { class: "swatch", style: `--h:${h}` });
export const scrollToNode = (node, block = "nearest") => node?.scrollIntoView({ block });

export const formatNumber = (n) => n.toLocaleString("en");
export const formatPercent = (x) => `${(100 * x).toFixed(1)}%`;
export const plural = (n, word) => (n === 1 ? word : word + (word.endsWith("ch") ? "es" : "s"));
export const formatCount = (n, word) => `${formatNumber(n)} ${plural(n, word)}`;
export const sum = (list, valueOf) => list.reduce((total, item) => total + valueOf(item), 0);
