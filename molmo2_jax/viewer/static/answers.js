// Generated answers next to the annotated ones, with the pictures on which one of the two has points.
import { CROP_SIZE, data, rows } from "./data.js";
import { div, make, sum } from "./elements.js";
import { canvas, cropImage, crossesOn, marksOn, pointsOn } from "./marks.js";

const ANNOTATED_HUE = 142; // green, as the heading

const answerCard = (answer) => {
  const [r, e] = answer.asked_in ?? [], pictures = rows[r]?.examples[e].pictures ?? [];
  const sides = ["annotated", "generated"].map((side) => div(side,
    make("h4", {}, `${side === "annotated" ? "○" : "×"} ${side}`),
    make("p", {}, answer[side].parts.map(([text, differs]) => (differs ? make("mark", {}, text) : text)))));
  const figures = pictures.flatMap((picture, p) => {
    if (!pointsOn([...answer.annotated.tags, ...answer.generated.tags], p).length) return [];
    return make("figure", {},
      canvas("small", CROP_SIZE, CROP_SIZE, cropImage(rows[r], picture.crop),
        marksOn(answer.annotated.tags, p, CROP_SIZE, CROP_SIZE, false, () => ANNOTATED_HUE),
        crossesOn(answer.generated.tags, p)),
      make("figcaption", {}, picture.caption));
  });
  return make("article", { class: `card answer ${answer.equal ? "equal" : "unequal"}` },
    make("h3", {}, answer.prompt, make("span", { class: "verdict" }, answer.equal ? "equal" : "different")),
    div("pair", sides), div("figures", figures));
};

export const answersSection = () => {
  if (!data.answers.length) return null;
  const equal = `${sum(data.answers, (answer) => +answer.equal)} of ${data.answers.length}`;
  return make("details", { class: "answers", open: true },
    make("summary", {}, `${equal} generated answers equal the annotated ones`), data.answers.map(answerCard));
};
