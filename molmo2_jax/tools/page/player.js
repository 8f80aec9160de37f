// The player of an example: one view large with the marks of its moment, a lane for every label, subtitles, a strip.
// Views, tags and subtitles are those of film.py; a point is [number, view, x, y, key].

const picture = (row, crop, x = 0, y = 0) =>
  make("image", { x, y, width: SIDE, height: SIDE, href: data.pictures[row.crops[crop]], "data-crop": crop });
const canvas = (name, width, height, ...children) =>
  make("svg", { class: name, viewBox: `0 0 ${width} ${height}` }, ...children);
const pointsOn = (tags, v) => tags.flatMap((tag) => tag.points.filter(([, view]) => view === v));
const objectsOf = (tag) => [...new Set(tag.points.map(([object]) => object))].sort((a, b) => a - b);

const ring = ([n, , x, y], width, height, unit, colour, label) => {
  const [cx, cy, left] = [x * width, y * height, x > 0.6];
  return make("g", { class: "point", style: `--c:${colour}` },
    make("circle", { class: "ring", cx, cy, r: 9 * unit }), make("circle", { class: "dot", cx, cy, r: 1.8 * unit }),
    label && make("text", {
      x: cx + (left ? -13 : 13) * unit, y: cy + (y < 0.1 ? 18 : -6) * unit, "text-anchor": left ? "end" : "start",
      style: `font-size:${17 * unit}px`,
    }, label));
};

// The path of an object up to view v and, paler, after it.
const trackPaths = (tag, object, v, width, height) => {
  const along = tag.points.filter(([n]) => n === object).sort((a, b) => a[4] - b[4]);
  const time = Math.max(...tag.points.filter(([, view]) => view >= 0 && view <= v).map((point) => point[4]));
  const past = along.filter((point) => point[4] <= time).length;
  return [[along.slice(0, past), "path"], [along.slice(Math.max(0, past - 1)), "path later"]]
    .filter(([points]) => points.length > 1)
    .map(([points, name]) => make("path", {
      class: name, "data-object": object, style: `--c:hsl(${hueOfObject(object)} 90% 60%)`,
      d: `M${points.map(([, , x, y]) => `${(x * width).toFixed(1)} ${(y * height).toFixed(1)}`).join("L")}`,
    }));
};

// The marks of tags on view v, drawn to width x height units; only the large ones have paths and labels.
const marksOn = (tags, v, width, height, large, hueOfTag) => tags.flatMap((tag) => {
  const unit = (Math.max(width, height) / SIDE) * (large ? 1 : 2), track = tag.kind === "tracks";
  const paths = track && large ? objectsOf(tag).flatMap((object) => trackPaths(tag, object, v, width, height)) : [];
  return [...paths, ...pointsOn([tag], v).map((point) => {
    const colour = `hsl(${track ? hueOfObject(point[0]) : hueOfTag(tag)} 90% 60%)`;
    return ring(point, width, height, unit, colour, large && (track ? `${point[0]}` : `${point[0]} ${tag.label}`));
  })];
});

// A lane of ticks for every tag, or every object of its tracks; its name hides and shows the tag.
const lanesOf = (tags, partOf, share, toggle) => tags.flatMap((tag) => {
  const objects = tag.kind === "tracks" ? objectsOf(tag) : [null], { name, hue: branchHue } = partOf(tag);
  const lanes = objects.map((object) => {
    const h = object === null ? branchHue : hueOfObject(object);
    const views = new Set(tag.points.filter(([n, v]) => v >= 0 && (object === null || n === object)).map(([, v]) => v));
    const ticks = [...views].map((v) => make("line", { x1: share(v), x2: share(v), y1: 0.3, y2: 0.7 }));
    const style = `--c:hsl(${h} 75% 55%)`;
    return div("lane",
      make("button", { "aria-pressed": "true", title: "hide or show", click: () => {
        const shown = toggle(tag);
        lanes.forEach((lane) => lane.firstChild.setAttribute("aria-pressed", `${shown}`));
      } }, swatch(h), `${name} · ${tag.label}${object === null ? "" : ` ${object}`}`),
      div("track", make("svg", { class: "ticks", viewBox: "0 0 1 1", preserveAspectRatio: "none", style }, ticks)));
  });
  return lanes;
});

// The element, with `showCrop(crop)`. `first` is the view to begin with, `tell(view)` hears of every one chosen.
const player = (row, example, e, first, tell) => {
  const { views, tags, timed, subtitles } = example, last = views.length - 1, hidden = new Set();
  const at = (v) => (timed ? views[v].key : v), length = at(last) - at(0) || 1, share = (v) => (at(v) - at(0)) / length;
  const partOf = (tag) => row.branches.find((part) => part.e === e && part.b === tag.branch);
  const marks = (v, width, height, large) =>
    marksOn(tags.filter((tag) => !hidden.has(tag)), v, width, height, large, (tag) => partOf(tag).hue);

  const stage = div("stage"), caption = make("span", { class: "caption" }), said = make("p", { class: "said" });
  const slider = make("input", {
    type: "range", class: "scrub", min: at(0), max: at(last), step: timed ? 0.01 : 1, "aria-label": "time",
  });
  const figures = views.map((view, v) => make("figure", { click: () => seek(v) },
    canvas("small", SIDE, SIDE, picture(row, view.crop), marks(v, SIDE, SIDE, false)), make("figcaption", {}, view.caption)));
  const strip = div("strip", figures), lines = subtitles.map(([from, to, text]) =>
    make("p", {}, from !== null && make("b", {}, `${from.toFixed(1)}–${to.toFixed(1)}`), text));
  let now = -1, timer = null;

  const draw = () => {
    const { crop, tiles, size: [width, height] } = views[now];
    stage.replaceChildren(canvas("whole", SIDE, SIDE, picture(row, crop), marks(now, SIDE, SIDE, true)));
    if (!tiles.length) return;
    const tiled = canvas("tiled", width, height, tiles.map((tile) => picture(row, ...tile)), marks(now, width, height, true));
    tiled.style.flexGrow = width / height;
    stage.append(tiled);
  };
  const centre = () => { strip.scrollLeft = figures[now].offsetLeft - (strip.clientWidth - figures[now].offsetWidth) / 2; };
  const show = (v) => {
    if (v === now) return;
    figures[now]?.classList.remove("on");
    now = v;
    figures[now].classList.add("on");
    draw();
    const view = views[now], points = pointsOn(tags, now).length;
    caption.textContent = [view.caption, `${now + 1} of ${views.length}`, `crop ${view.crop}`,
      ...(view.tiles.length ? [count(view.tiles.length, "tile")] : []), ...(points ? [count(points, "point")] : [])].join(" · ");
    const spoken = subtitles.map(([from, to]) => timed && from !== null && from <= view.key && view.key <= to);
    lines.forEach((line, n) => line.classList.toggle("on", spoken[n]));
    said.textContent = subtitles.filter((_, n) => spoken[n]).map(([, , text]) => text).join(" ");
    if (spoken.includes(true)) transcript.scrollTop = lines[spoken.indexOf(true)].offsetTop - 40;
    centre();
    box.style.setProperty("--t", share(now));
  };
  const seek = (v) => {
    show(v);
    slider.value = at(v);
    tell(v);
  };

  // The time between two views shows the earlier one.
  slider.addEventListener("input", () => {
    const time = slider.value;
    seek(Math.max(0, views.findLastIndex((_, v) => at(v) <= +time + 1e-6)));
    slider.value = time;
  });
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    seek(Math.min(last, Math.max(0, now + step)));
  });
  const halt = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = "▶ play";
  };
  const tick = () => {
    if (now === last || !box.isConnected) return halt();
    const wait = timed ? Math.min(2000, 1000 * (at(now + 1) - at(now))) : 1000;
    timer = setTimeout(() => { seek(now + 1); tick(); }, wait);
  };
  const play = make("button", { class: "play", click: () => {
    if (timer) return halt();
    if (now === last) seek(0);
    play.textContent = "❚❚ pause";
    tick();
  } }, "▶ play");

  const lanes = lanesOf(tags, partOf, share, (tag) => {
    const shown = hidden.delete(tag);
    if (!shown) hidden.add(tag);
    draw();
    return shown;
  });
  const lost = tags.flatMap((tag) => tag.points.filter(([, view]) => view < 0).map(() => tag.label));
  const span = timed ? `${at(0).toFixed(1)}–${at(last).toFixed(1)} s` : count(views.length, "view");
  const transcript = div("transcript", lines);
  const box = div(`player${views.some((view) => view.tiles.length) ? " detailed" : ""}`,
    div("", stage, div("now", timed && last > 0 && play, caption), lines.length > 0 && said),
    div("lanes", div("lanes-scroll", lanes),
      last > 0 && div("lane", make("span", { class: "soft" }, span), slider),
      lost.length > 0 && make("p", { class: "lost" },
        `${count(lost.length, "point")} on none of these views: ${[...new Set(lost)].join(", ")}`),
      lines.length > 0 && transcript),
    last > 0 && strip);
  box.showCrop = (crop) => {
    const v = views.findIndex((view) => view.crop === crop || view.tiles.some(([tile]) => tile === crop));
    if (v >= 0) seek(v);
  };

  const marked = views.findIndex((_, v) => pointsOn(tags, v).length);
  show(Math.min(last, first ?? Math.max(0, marked)));
  slider.value = at(now);
  requestAnimationFrame(centre); // once it has a width
  return box;
};
