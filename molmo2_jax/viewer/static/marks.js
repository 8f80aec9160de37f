// Crops as SVG images, and the points and tracks on them. A point is [object, picture, x, y, key] (player_data.py).
import { CROP_SIZE, data, objectHue } from "./data.js";
import { make } from "./elements.js";

export const cropImage = (row, crop, x = 0, y = 0) => make("image", {
  x, y, width: CROP_SIZE, height: CROP_SIZE, href: data.crop_images[row.crops[crop]], "data-crop": crop,
});
export const canvas = (name, width, height, ...children) =>
  make("svg", { class: name, viewBox: `0 0 ${width} ${height}` }, ...children);
export const pointsOn = (tags, p) => tags.flatMap((tag) => tag.points.filter(([, picture]) => picture === p));
export const objectsOf = (tag) => [...new Set(tag.points.map(([object]) => object))].sort((a, b) => a - b);

const ring = ([, , x, y], width, height, unit, colour, label) => {
  const cx = x * width, cy = y * height, left = x > 0.6;
  return make("g", { class: "point", style: `--c:${colour}` },
    make("circle", { class: "ring", cx, cy, r: 9 * unit }), make("circle", { class: "dot", cx, cy, r: 1.8 * unit }),
    label && make("text", {
      x: cx + (left ? -13 : 13) * unit, y: cy + (y < 0.1 ? 18 : -6) * unit, "text-anchor": left ? "end" : "start",
      style: `font-size:${17 * unit}px`,
    }, label));
};

// The path of an object up to picture p and, dashed, after it.
const trackPaths = (tag, object, p, width, height) => {
  const points = tag.points.filter(([n]) => n === object).sort((a, b) => a[4] - b[4]);
  const time = Math.max(...tag.points.filter(([, picture]) => picture >= 0 && picture <= p).map((point) => point[4]));
  const past = points.filter((point) => point[4] <= time).length;
  return [[points.slice(0, past), "path"], [points.slice(Math.max(0, past - 1)), "path later"]]
    .filter(([part]) => part.length > 1)
    .map(([part, name]) => make("path", {
      class: name, "data-object": object, style: `--c:hsl(${objectHue(object)} 90% 60%)`,
      d: `M${part.map(([, , x, y]) => `${(x * width).toFixed(1)} ${(y * height).toFixed(1)}`).join("L")}`,
    }));
};

// The marks of tags on picture p, drawn to width x height units; only large ones have paths and labels.
export const marksOn = (tags, p, width, height, large, tagHue) => tags.flatMap((tag) => {
  const unit = (Math.max(width, height) / CROP_SIZE) * (large ? 1 : 2), track = tag.kind === "tracks";
  const paths = track && large ? objectsOf(tag).flatMap((object) => trackPaths(tag, object, p, width, height)) : [];
  return [...paths, ...pointsOn([tag], p).map((point) => {
    const colour = `hsl(${track ? objectHue(point[0]) : tagHue(tag)} 90% 60%)`;
    return ring(point, width, height, unit, colour, large && (track ? `${point[0]}` : `${point[0]} ${tag.label}`));
  })];
});

export const crossesOn = (tags, p) => pointsOn(tags, p).map(([, , x, y]) => {
  const left = x * CROP_SIZE - 9, top = y * CROP_SIZE - 9;
  return make("path", { class: "cross", d: `M${left} ${top}l18 18M${left} ${top + 18}l18 -18` });
});
