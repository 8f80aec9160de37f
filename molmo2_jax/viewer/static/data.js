// The page's data (page_data in page.py), with the branches of each row and a hue for all that has a colour.

export const data = JSON.parse(document.getElementById("data").textContent);
export const rows = data.rows;
export const CROP_SIZE = data.crop_size; // pixels along a side of a crop, units of its SVG

// Hues are far apart, however many there are.
const hue = (n, first = 200) => Math.round(first + n * 137.5) % 360;
const hueOfDataset = Object.fromEntries(data.datasets.map((dataset, n) => [dataset.name, hue(n, 40)]));
export const datasetHue = (name) => hueOfDataset[name];
export const hasDataset = (name) => Object.hasOwn(hueOfDataset, name);
export const exampleHue = (e) => hue(e);
export const objectHue = (n) => hue(n, 20);

// A branch of a row: its example e, its index b in it, its hue and the id of its element.
rows.forEach((row, r) => {
  row.branches = row.examples.flatMap((example, e) =>
    example.branches.map(([name, start, stop, depth, supervised], b) =>
      ({ e, b, name, start, stop, depth, supervised })));
  row.branches.forEach((branch, n) => Object.assign(branch, { hue: hue(n), id: `r${r}e${branch.e}b${branch.b}` }));
});
