import base64
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax.ops.attention import mask
from molmo2_jax.viewer import mask_picture, page
from molmo2_jax.viewer.answers import Answer
from tests.molmo2_jax.viewer import rows as by_hand
from tests.molmo2_jax.viewer.rows import Turn, Visual, video

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"' & <!--DATA--> \ud800"
VOID = {"meta", "input", "br", "img", "link"}  # elements without an end tag


class Page(html.parser.HTMLParser):
    """The elements of a page as (tag, attributes, text inside). Tags must nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag):
        return [element for element in self.elements if element[0] == tag]


@pytest.fixture(scope="module")
def story(tokenizer):
    return by_hand.story(tokenizer)


@pytest.fixture(scope="module")
def data(story, tokenizer):
    rows, names = story
    return page.page_data(rows, tokenizer, names)


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_the_page_stands_alone_and_texts_are_data(tokenizer, tmp_path):
    row = by_hand.row(tokenizer, [(Visual(), [Turn(HOSTILE.replace("\ud800", ""), "yes")])], 512, 0, 0)
    path = tmp_path / "new" / "page.html"
    names = [[{"dataset": HOSTILE, "id": HOSTILE, "failed": HOSTILE}]]
    answers = [Answer(HOSTILE, HOSTILE, "no")]
    page.write_page(path, page.render_page(rows=[row], tok=tokenizer, title=HOSTILE, examples=names, answers=answers))
    written = path.read_text(encoding="utf-8")
    parsed = Page(written)
    (policy,) = [meta[1]["content"] for meta in parsed.all("meta") if "http-equiv" in meta[1]]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert not any({"src", "href", "onerror"} & attributes.keys() for _, attributes, _ in parsed.elements)
    data_script, module = (attributes for _, attributes, _ in parsed.all("script"))
    assert data_script == {"type": "application/json", "id": "data"} and module == {"type": "module"}
    assert parsed.all("title")[0][2] == HOSTILE.replace("\ud800", "?")
    data = json.loads(parsed.all("script")[0][2])
    assert data["rows"][0]["examples"][0]["id"] == HOSTILE == data["answers"][0]["prompt"]
    ids = data["rows"][0]["stream"]["ids"]
    assert HOSTILE.replace("\ud800", "") in "".join(data["vocabulary"][str(i)] for i in ids)


def test_counts_of_a_row(story, data):
    for row, shown in zip(story[0], data["rows"], strict=True):
        used = int((row["visible_until"] > 0).sum())
        one = mask.Visibility(np.arange(4096, dtype=np.int32), row["visible_until"], row["image_group"])
        assert (shown["used"], shown["length"]) == (used, 4096)
        assert shown["supervised"] == (row["loss_weights"] > 0).sum()
        assert shown["weight"] == pytest.approx(row["loss_weights"].sum())
        assert shown["allowed"] == pytest.approx(np.asarray(mask.allowed(one, one)).mean())
        assert shown["budgets"]["pooled tokens"] == [(row["visual_slots"] < 4096).sum(), 4096]
    assert [shown["budgets"]["crops"] for shown in data["rows"]] == [[7, 32], [7, 32], [2, 32]]


def test_examples_have_their_names_and_branches(story, data):
    assert [[(e["dataset"], e["id"], e["failed"]) for e in row["examples"]] for row in data["rows"]] == [
        [(n["dataset"], n["id"], n["failed"]) for n in names] for names in story[1]
    ]
    clip, chat = data["rows"][0]["examples"]
    assert [(name, depth) for name, _, _, depth, _ in clip["branches"]] == [("root", 0), ("A", 1), ("B", 1), ("C", 1)]
    assert [(name, depth) for name, _, _, depth, _ in chat["branches"]] == [("root", 0), ("A", 1), ("B", 1)]
    assert clip["branches"][0][1] == clip["start"] == 0 and clip["branches"][-1][2] == clip["stop"] == chat["start"]
    weights = story[0][0]["loss_weights"]
    assert [supervised for *_, supervised in clip["branches"]] == [
        (weights[start:stop] > 0).sum() for _, start, stop, *_ in clip["branches"]
    ]


def test_datasets_are_summed_over_rows(data):
    totals = {one["name"]: one for one in data["datasets"]}
    assert [one["name"] for one in data["datasets"]] == ["balls", "pixmo_points", "chat"]
    assert [(one["examples"], one["failed"]) for one in data["datasets"]] == [(2, 1), (2, 0), (2, 0)]
    assert sum(one["tokens"] for one in data["datasets"]) == sum(row["used"] for row in data["rows"])
    assert sum(one["supervised"] for one in data["datasets"]) == sum(row["supervised"] for row in data["rows"])
    assert sum(one["weight"] for one in data["datasets"]) == pytest.approx(sum(row["weight"] for row in data["rows"]))
    assert totals["chat"]["supervised"] == sum(
        supervised for r in (0, 2) for *_, supervised in data["rows"][r]["examples"][1]["branches"]
    )


def test_rows_without_names_have_an_unknown_dataset(story, tokenizer):
    data = page.page_data(story[0][2:], tokenizer)
    assert [(one["name"], one["examples"], one["failed"]) for one in data["datasets"]] == [("unknown", 2, 0)]
    assert {example["id"] for example in data["rows"][0]["examples"]} == {None}


def test_names_must_match_the_examples(story, tokenizer):
    rows, names = story
    with pytest.raises(ValueError, match="row 2 has 2 examples, but names of 1"):
        page.render_page(rows=rows, tok=tokenizer, title="x", examples=[*names[:2], names[2][:1]])


def test_a_broken_row_is_refused(tokenizer):
    broken = empty_row(RowShape(8, 1, 1)) | {"visible_until": np.full(8, 9, np.int32)}
    with pytest.raises(ValueError, match="begins an example"):
        page.render_page(rows=[broken], tok=tokenizer, title="x")


def test_an_empty_row_is_a_row(tokenizer):
    data = page.page_data([empty_row(RowShape(8, 1, 1))], tokenizer)
    assert data["rows"][0]["examples"] == [] and data["rows"][0]["used"] == 0 and data["crop_images"] == []


def test_the_picture_of_the_mask_is_the_mask(tokenizer):
    row = by_hand.row(tokenizer, [(video(tokenizer, [0.0, 0.5]), [Turn("a", "b"), Turn("c", "d")])], 400, 2, 162)
    (shown,) = page.page_data([row], tokenizer)["rows"]
    pixels = np.asarray(decode(shown["mask"]))
    one = mask.Visibility(np.arange(400, dtype=np.int32), row["visible_until"], row["image_group"])
    allowed = np.asarray(mask.allowed(one, one))
    assert pixels.shape == (400, 400, 4) and shown["block"] == 1
    np.testing.assert_array_equal(pixels[..., 3] == 255, allowed)
    np.testing.assert_array_equal(pixels[..., 3] == 0, ~allowed)
    above = np.triu(allowed, 1)
    assert above.any()
    assert (pixels[above][:, :3] == mask_picture.BIDIRECTIONAL).all()
    assert (pixels[np.tril(allowed)][:, :3] == mask_picture.CAUSAL).all()


def test_crop_images_are_the_crops(story, data):
    assert data["image_size"] == 378
    for row, shown in zip(story[0], data["rows"], strict=True):
        for crop, index in shown["crops"].items():
            pixels = np.asarray(decode(data["crop_images"][index]).convert("RGB"), np.int32)
            patches = row["crops"][crop].reshape(27, 27, 14, 14, 3)
            assert np.abs(pixels[:14, 14:28] - patches[0, 1]).mean() < 4
            assert np.abs(pixels[364:, 350:364] - patches[26, 25]).mean() < 4
    assert len(data["crop_images"]) == 16


def test_answers_are_drawn_on_the_example_that_has_their_prompt(story, tokenizer):
    annotated = '<points coords="1.0 1 300 600">ball</points>'
    answers = [Answer("Where is the ball?", annotated, annotated.replace("300", "320")), Answer("Never.", "a", "a")]
    first, second = page.page_data(*story[:1], tokenizer, answers=answers)["answers"]
    assert first["asked_in"] == (0, 0) and second["asked_in"] is None
    assert (first["equal"], second["equal"]) == (False, True)
    assert first["annotated"]["tags"][0]["points"] == [[1, 2, 0.3, 0.6, 1.0]]
    assert first["generated"]["tags"][0]["points"] == [[1, 2, 0.32, 0.6, 1.0]]
    assert second["annotated"] == {"parts": [["a", False]], "tags": []}


def test_crops_of_vision_shards_are_found(tokenizer):
    row = by_hand.row(tokenizer, [(video(tokenizer, [0.0, 0.5]), [Turn("a", "b")])], 400, 4, 324)
    whole = page.page_data([row], tokenizer)["rows"][0]["examples"][0]["pictures"]
    # The second frame moves to the second shard: crop 2, pooled by rows 162 on, as its patches 0 to 728.
    for name, pad in (("pooling", -1), ("visual_slots", 400)):
        row[name][162:243] = row[name][81:162] - (729 if name == "pooling" else 0)
        row[name][81:162] = pad
    row["crops"][2], row["crops"][1] = row["crops"][1].copy(), 0
    cut = page.page_data([row], tokenizer, vision_shards=2)["rows"][0]["examples"][0]["pictures"]
    assert [picture["crop"] for picture in whole] == [0, 1] and [picture["crop"] for picture in cut] == [0, 2]


def test_a_batch_is_split_into_its_rows():
    row = empty_row(RowShape(8, 1, 1))
    batch = {name: np.stack([array, array + 1]) for name, array in row.items()}
    unbatched = page.unbatch(batch | {"failures": [], "counts": {"examples": 2}})
    assert len(unbatched) == 2 and unbatched[0].keys() == row.keys()
    for name in row:
        np.testing.assert_array_equal(unbatched[0][name], row[name])
        np.testing.assert_array_equal(unbatched[1][name], row[name] + 1)


def test_a_title_names_at_most_three_datasets():
    assert page.page_title("overfit", ["a"]) == "overfit: a"
    assert page.page_title("overfit", ["a", "b", "c"]) == "overfit: a, b, c"
    datasets = ["a", "b", "c", *map(str, range(115))]
    assert page.page_title("stage2_sft", datasets) == "stage2_sft: a, b, c and 115 more"
