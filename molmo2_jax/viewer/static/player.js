// The player of an example: one large picture with its points and tracks, a lane for every label, subtitles, a strip.
import { CROP_SIZE, objectHue } from "./data.js";
import { div, formatCount, make, swatch } from "./elements.js";
import { canvas, cropImage, marksOn, objectsOf, pointsOn } from "./marks.js";

// A lane of ticks for every tag, or for every object of its tracks. Its name hides and shows the tag.
const tagLanes = (tags, branchOf, share, toggle) => tags.flatMap((tag) => {
  const objects = tag.kind === "tracks" ? objectsOf(tag) : [null], branch = branchOf(tag);
  const lanes = objects.map((object) => {
    const h = object === null ? branch.hue : objectHue(object);
    const ofObject = tag.points.filter(([n, picture]) => picture >= 0 && (object === null || n === object));
    const ticks = [...new Set(ofObject.map(([, picture]) => share(picture)))]
      .map((x) => make("line", { x1: x, x2: x, y1: 0.3, y2: 0.7 }));
    const style = `--c:hsl(${h} 75% 55%)`;
    return div("lane",
      make("button", { "aria-pressed": "true", title: "hide or show", click: () => {
        const shown = toggle(tag);
        lanes.forEach((lane) => lane.firstChild.setAttribute("aria-pressed", `${shown}`));
      } }, swatch(h), `${branch.name} · ${tag.label}${object === null ? "" : ` ${object}`}`),
      div("track", make("svg", { class: "ticks", viewBox: "0 0 1 1", preserveAspectRatio: "none", style }, ticks)));
  });
  return lanes;
});

// The element, with `showCrop(crop)`. `first`: index of the picture to begin with. `onSelect(p)`: called when the reader
// selects picture p.
export const makePlayer = (row, example, e, first, onSelect) => {
  const { pictures, tags, timed, subtitles } = example, last = pictures.length - 1, hidden = new Set();
  const at = (p) => (timed ? pictures[p].key : p), length = at(last) - at(0) || 1;
  const share = (p) => (at(p) - at(0)) / length;
  const branchOf = (tag) => row.branches.find((branch) => branch.e === e && branch.b === tag.branch);
  const marks = (p, width, height, large) =>
    marksOn(tags.filter((tag) => !hidden.has(tag)), p, width, height, large, (tag) => branchOf(tag).hue);

  const stage = div("stage"), caption = make("span", { class: "caption" }), subtitle = make("p", { class: "subtitle" });
  const slider = make("input", {
    type: "range", class: "slider", min: at(0), max: at(last), step: timed ? 0.01 : 1, "aria-label": "time",
  });
  const figures = pictures.map((picture, p) => make("figure", { click: () => select(p) },
    canvas("small", CROP_SIZE, CROP_SIZE, cropImage(row, picture.crop), marks(p, CROP_SIZE, CROP_SIZE, false)),
    make("figcaption", {}, picture.caption)));
  const strip = div("strip", figures);
  const lines = subtitles.map(([from, to, text]) =>
    make("p", {}, from !== null && make("b", {}, `${from.toFixed(1)}–${to.toFixed(1)}`), text));
  const transcript = div("transcript", lines);
  let current = -1, timer = null;

  const draw = () => {
    const { crop, detail_crops: detailCrops, size: [width, height] } = pictures[current];
    stage.replaceChildren(
      canvas("whole", CROP_SIZE, CROP_SIZE, cropImage(row, crop), marks(current, CROP_SIZE, CROP_SIZE, true)));
    if (!detailCrops.length) return;
    const detail = canvas("detail", width, height,
      detailCrops.map((one) => cropImage(row, ...one)), marks(current, width, height, true));
    detail.style.flexGrow = width / height;
    stage.append(detail);
  };
  const captionOf = (picture) => {
    const points = pointsOn(tags, current).length, details = picture.detail_crops.length;
    return [picture.caption, `${current + 1} of ${pictures.length}`, `crop ${picture.crop}`,
      details > 0 && formatCount(details, "detail crop"), points > 0 && formatCount(points, "point")]
      .filter(Boolean).join(" · ");
  };
  const showSubtitles = ({ key }) => {
    const spoken = subtitles.map(([from, to]) => timed && from !== null && from <= key && key <= to);
    lines.forEach((line, n) => line.classList.toggle("on", spoken[n]));
    subtitle.textContent = subtitles.filter((_, n) => spoken[n]).map(([, , text]) => text).join(" ");
    if (spoken.includes(true)) transcript.scrollTop = lines[spoken.indexOf(true)].offsetTop - 40;
  };
  const centreStrip = () => {
    strip.scrollLeft = figures[current].offsetLeft - (strip.clientWidth - figures[current].offsetWidth) / 2;
  };
  const show = (p) => {
    if (p === current) return;
    figures[current]?.classList.remove("on");
    current = p;
    figures[current].classList.add("on");
    draw();
    caption.textContent = captionOf(pictures[current]);
    showSubtitles(pictures[current]);
    centreStrip();
    player.style.setProperty("--t", share(current));
  };
  const select = (p) => {
    show(p);
    slider.value = at(p);
    onSelect(p);
  };

  // A time between two pictures shows the earlier one.
  slider.addEventListener("input", () => {
    const time = slider.value;
    select(Math.max(0, pictures.findLastIndex((_, p) => at(p) <= +time + 1e-6)));
    slider.value = time;
  });
  slider.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    select(Math.min(last, Math.max(0, current + by)));
  });
  const pause = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = "▶ play";
  };
  const playNext = () => {
    if (current === last || !player.isConnected) return pause();
    const wait = timed ? Math.min(2000, 1000 * (at(current + 1) - at(current))) : 1000;
    timer = setTimeout(() => { select(current + 1); playNext(); }, wait);
  };
  const play = make("button", { class: "play", click: () => {
    if (timer) return pause();
    if (current === last) select(0);
    play.textContent = "❚❚ pause";
    playNext();
  } }, "▶ play");

  const lanes = tagLanes(tags, branchOf, share, (tag) => {
    const shown = hidden.delete(tag);
    if (!shown) hidden.add(tag);
    draw();
    return shown;
  });
  const unplaced = tags.flatMap((tag) => tag.points.filter(([, picture]) => picture < 0).map(() => tag.label));
  const span = timed ? `${at(0).toFixed(1)}–${at(last).toFixed(1)} s` : formatCount(pictures.length, "picture");
  const player = div(`player${pictures.some((picture) => picture.detail_crops.length) ? " detailed" : ""}`,
    div("", stage, div("controls", timed && last > 0 && play, caption), lines.length > 0 && subtitle),
    div("lanes", div("lanes-scroll", lanes),
      last > 0 && div("lane", make("span", { class: "soft" }, span), slider),
      unplaced.length > 0 && make("p", { class: "unplaced" },
        `${formatCount(unplaced.length, "point")} without a picture: ${[...new Set(unplaced)].join(", ")}`),
      lines.length > 0 && transcript),
    last > 0 && strip);
  player.showCrop = (crop) => {
    const p = pictures.findIndex((picture) => picture.crop === crop || picture.detail_crops.some(([c]) => c === crop));
    if (p >= 0) select(p);
  };

  const marked = pictures.findIndex((_, p) => pointsOn(tags, p).length);
  show(Math.min(last, first ?? Math.max(0, marked)));
  slider.value = at(current);
  requestAnimationFrame(centreStrip); // once the strip has a width
  return player;
};
