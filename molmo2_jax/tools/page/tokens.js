// The tokens of a row, from the short lists of token_stream.py: spans, tooltips, and who sees whom.

const KINDS = { t: "text", c: "control", v: "visual", a: "answer" };

// The last entry of a list of [start, ...] that begins at or before i.
const lastFrom = (list, i) => {
  let low = 0, high = list.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle][0] <= i) low = middle;
    else high = middle;
  }
  return list[low];
};

const piece = (id) => data.vocabulary[id];
const weightAt = (row, i) => lastFrom(row.stream.weights, i)[1];
const targetAt = (row, i) => {
  const named = lastFrom(row.stream.targets, i);
  return named && named[0] === i ? named[1] : row.stream.ids[i + 1];
};
const foldAt = (row, i) => row.stream.folds.find(([start]) => start === i);

// Why query q sees key k, "" if it does not: the rule of ops/mask.py.
const rule = (row, q, k) => {
  const [, , , group] = lastFrom(row.stream.runs, q), [, , until, other] = lastFrom(row.stream.runs, k);
  if (k <= q && q < until) return "causal";
  return group !== 0 && group === other ? "by its image group" : "";
};

// How many tokens query q sees.
const seenBy = (row, q) => {
  const { runs } = row.stream, [, , , mine] = lastFrom(runs, q);
  return sum(runs.map((run, n) => [...run, n + 1 < runs.length ? runs[n + 1][0] : row.length]),
    ([start, , until, group, stop]) => {
      if (group !== 0 && group === mine) return stop - start;
      return q < until ? Math.max(0, Math.min(stop, q + 1) - start) : 0;
    });
};

const tokenTip = (row, i, j) => {
  const [start, position, until, group] = lastFrom(row.stream.runs, i);
  const [at, many, fold] = [position + i - start, j - i > 1, foldAt(row, i)];
  return [
    `index ${i}${many ? `–${j - 1}` : ""}`,
    `id ${row.stream.ids[i]}`,
    `position ${at}${many ? `–${at + j - i - 1}` : ""}`,
    `visible_until ${until}`,
    `image_group ${group}`,
    `weight ${weightAt(row, i)}`,
    ...(fold && fold[3] >= 0 ? [fold[2] === fold[3] ? `crop ${fold[2]}` : `crops ${fold[2]}–${fold[3]}`] : []),
    ...(many ? [] : [`target ${targetAt(row, i)} ${JSON.stringify(piece(targetAt(row, i)))}`]),
  ].join("\n");
};

// The spans of a branch: a token each, but one for a run of <im_patch>. The last target of a branch (its EOS), which is
// learned and no token of it, is drawn as a ghost.
const tokenSpans = (row, part) => {
  const { ids, kinds, folds, weights } = row.stream;
  const heaviest = Math.max(...weights.map(([, weight]) => weight)) || 1;
  const stops = new Map(folds), spans = [];
  for (let i = part.start, j; i < part.stop; i = j) {
    j = stops.get(i) ?? i + 1;
    const weight = weightAt(row, i), many = j - i > 1;
    const lines = piece(ids[i]).split("\n").map((line, n) => (n ? [make("i", { class: "eol" }, "↵"), "\n", line] : line));
    spans.push(make("span", {
      class: `t ${KINDS[kinds[i]]}${weight > 0 ? " learns" : ""}${many ? " fold" : ""}`,
      style: weight > 0 && `--w:${(weight / heaviest).toFixed(3)}`, "data-i": i, "data-j": j,
    }, many ? `${j - i} × ${piece(ids[i])}` : lines));
  }
  if (weightAt(row, part.stop - 1) > 0) {
    const title = "the last target: learned, but not itself a token of this branch";
    spans.push(make("span", { class: "ghost", title }, piece(targetAt(row, part.stop - 1))));
  }
  return spans;
};
