// The tokens of a row, from the short lists of token_stream.py: spans, tooltips, and the attention mask.
import { data } from "./data.js";
import { make, sum } from "./elements.js";

const KINDS = { t: "text", c: "control", v: "visual", a: "answer" };

// The last entry of a list of [start, ...] that begins at or before i.
export const entryAt = (list, i) => {
  let low = 0, high = list.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle][0] <= i) low = middle;
    else high = middle;
  }
  return list[low];
};

export const tokenText = (id) => data.vocabulary[id];
const weightAt = (row, i) => entryAt(row.stream.weights, i)[1];
const targetAt = (row, i) => {
  const target = entryAt(row.stream.targets, i);
  return target && target[0] === i ? target[1] : row.stream.ids[i + 1];
};
export const foldAt = (row, i) => row.stream.folds.find(([start]) => start === i);

// Why query q attends to key k, "" if it does not: the rule of ops/attention/mask.py.
export const attentionRule = (row, q, k) => {
  const [, , , queryGroup] = entryAt(row.stream.runs, q), [, , until, keyGroup] = entryAt(row.stream.runs, k);
  if (k <= q && q < until) return "causal";
  return queryGroup !== 0 && queryGroup === keyGroup ? "same image group" : "";
};

// How many tokens query q attends to.
export const countAllowed = (row, q) => {
  const { runs } = row.stream, [, , , queryGroup] = entryAt(runs, q);
  return sum(runs.map((run, n) => [...run, n + 1 < runs.length ? runs[n + 1][0] : row.length]),
    ([start, , until, group, stop]) => {
      if (group !== 0 && group === queryGroup) return stop - start;
      return q < until ? Math.max(0, Math.min(stop, q + 1) - start) : 0;
    });
};

// The tooltip of tokens i to j - 1.
export const tokenDetails = (row, i, j) => {
  const [start, position, until, group] = entryAt(row.stream.runs, i);
  const first = position + i - start, several = j - i > 1, fold = foldAt(row, i);
  return [
    `index ${i}${several ? `–${j - 1}` : ""}`,
    `id ${row.stream.ids[i]}`,
    `position ${first}${several ? `–${first + j - i - 1}` : ""}`,
    `visible_until ${until}`,
    `image_group ${group}`,
    `weight ${weightAt(row, i)}`,
    ...(fold && fold[3] >= 0 ? [fold[2] === fold[3] ? `crop ${fold[2]}` : `crops ${fold[2]}–${fold[3]}`] : []),
    ...(several ? [] : [`target ${targetAt(row, i)} ${JSON.stringify(tokenText(targetAt(row, i)))}`]),
  ].join("\n");
};

// The spans of a branch: one for each token, and one for each run of <im_patch>. The last target of a branch, its EOS,
// is not one of its tokens and gets a dashed span.
export const tokenSpans = (row, branch) => {
  const { ids, kinds, folds, weights } = row.stream;
  const largest = Math.max(...weights.map(([, weight]) => weight)) || 1;
  const stops = new Map(folds), spans = [];
  for (let i = branch.start, j; i < branch.stop; i = j) {
    j = stops.get(i) ?? i + 1;
    const weight = weightAt(row, i), several = j - i > 1;
    const lines = tokenText(ids[i]).split("\n")
      .map((line, n) => (n ? [make("i", { class: "eol" }, "↵"), "\n", line] : line));
    spans.push(make("span", {
      class: `t ${KINDS[kinds[i]]}${weight > 0 ? " supervised" : ""}${several ? " fold" : ""}`,
      style: weight > 0 && `--w:${(weight / largest).toFixed(3)}`, "data-i": i, "data-j": j,
    }, several ? `${j - i} × ${tokenText(ids[i])}` : lines));
  }
  if (weightAt(row, branch.stop - 1) > 0) {
    const title = "the last target of this branch; it is not one of its tokens";
    spans.push(make("span", { class: "last-target", title }, tokenText(targetAt(row, branch.stop - 1))));
  }
  return spans;
};
