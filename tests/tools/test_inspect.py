import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from molmo2_jax.data.example import answer_text, describe
from molmo2_jax.data.pack import pack
from molmo2_jax.data.record import load_records
from molmo2_jax.data.row import build_row
from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.ops import mask
from molmo2_jax.tools import film, inspect, mask_picture
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import read_row

HOSTILE = "</span></p><script>alert(1)</script><img src=x onerror=alert(2)> \"' & <!--FILL-->"
CAR = {
    "style": "video_point",
    "user": "Point to the black car.",
    "answer": {
        "label": "black <car>",
        "points": [
            {"time": 5.5, "x": 160, "y": 68},
            {"time": 6.0, "x": 320, "y": 136},
            {"time": 6.0, "x": 480, "y": 136},
        ],
    },
}
RIDER = {"style": "video_short_answer", "user": f"Who stands? {HOSTILE}", "answer": "One rider.\nIn black."}
VIDEO = {"id": "car", "video": "bikes.mp4", "clip": [5.0, 6.5], "messages": [CAR, RIDER]}
TEXT = {"id": "text", "messages": [{"style": "text_sft", "user": "Say \x00\x1b.", "answer": HOSTILE}]}


VOID = {"meta", "input", "br", "img", "link"}  # elements without an end tag


class Page(html.parser.HTMLParser):
    """Elements of a page as (tag, attributes, text inside), which fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag, **attributes):
        """Elements of this tag with these attributes; `cls` must be among the classes."""
        cls = attributes.pop("cls", None)
        return [
            element
            for element in self.elements
            if element[0] == tag
            and (cls is None or cls in element[1].get("class", "").split())
            and all(element[1].get(name) == value for name, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def row(tokenizer, data_config, street_video, tmp_path_factory):
    """One row of both examples: a real clip of four frames with two branches, and a text."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "bikes.mp4").write_bytes(street_video.read_bytes())
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (VIDEO, TEXT)))
    records = load_records(path)
    examples = [describe(r, tokenizer, data_config(), np.random.default_rng(0)) for r in records]
    shape = RowShape(tokens=600, crops=6, pooled=400, shards=1)
    (together,) = pack(examples, shape)
    built, failures = build_row(together, shape)
    assert failures == []
    return built


@pytest.fixture(scope="module")
def written(row, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "page.html"
    empty = empty_row(RowShape(8, 1, 1, shards=1))
    inspect.write_page(path, rows=[row, empty], tok=tokenizer, title=f"Street {HOSTILE}")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


def test_the_page_stands_alone(page, written):
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy[1]["content"]
    links = [
        value for _, attributes, _ in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "@import" not in written and "fetch(" not in written


def test_text_of_records_never_becomes_markup(page, written):
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert "<script>alert" not in written and "<img" not in written
    assert page.all("title")[0][2] == f"Street {HOSTILE}"
    said = "".join(token[2] for token in page.all("span", cls="t"))
    assert HOSTILE in said.replace("↵\n", "\n")


def test_every_token_of_the_row_is_on_the_page(page, row, tokenizer):
    spans = [token for token in page.all("span", cls="t") if "data-i" in token[1]]
    covered = [i for token in spans for i in range(int(token[1]["data-i"]), int(token[1]["data-j"]))]
    used = int((row["visible_until"] > 0).sum())
    assert covered == list(range(used))
    patch = tokenizer.special("<im_patch>")
    for _, attributes, text in spans:
        ids = row["tokens"][int(attributes["data-i"]) : int(attributes["data-j"])].tolist()
        if len(ids) > 1:
            assert ids == [patch] * 81
            assert text == "81 × <im_patch>"
        else:
            (piece,) = tokenizer.pieces(ids)
            assert text.replace("↵", "") == piece.replace("\x00", "␀").replace("\x1b", "␛")


def test_tokens_have_their_kind_and_numbers(page, row, tokenizer):
    spans = {int(t[1]["data-i"]): t[1] for t in page.all("span", cls="t") if "data-i" in t[1]}
    tokens = row["tokens"].tolist()
    frame, first_patch = tokens.index(tokenizer.special("<im_start>")), tokens.index(tokenizer.special("<im_patch>"))
    assert "visual" in spans[frame]["class"] and "visual fold" in spans[first_patch]["class"]
    assert "control" in spans[tokens.index(tokenizer.special("<|im_start|>"))]["class"]
    learned = np.flatnonzero(row["loss_weights"])
    assert [i for i, a in spans.items() if "learns" in a["class"]] == learned.tolist()
    i = int(learned[5])
    assert "answer" in spans[i]["class"]
    weight = row["loss_weights"]
    assert spans[i]["style"] == f"--w:{weight[i] / weight.max():.3f}"
    for name in ("visible_until", "image_group"):
        assert f"{name} {row[name][i]}\n" in spans[i]["title"]
    assert spans[i]["title"].startswith(f"index {i}\nid {tokens[i]}\nposition {row['positions'][i]}\n")
    assert f"weight {weight[i]:.4g}\ntarget {row['targets'][i]} " in spans[i]["title"]
    assert "crop 0" in spans[first_patch]["title"]
    # A control token's name in a text is text: the hostile ones above never are chips.
    assert all("control" not in spans[i]["class"] for i, t in enumerate(tokens) if i in spans and t < 151_643)


def test_branches_stand_in_blocks_of_their_own(page, row, tokenizer):
    examples = read_row(row, tokenizer)
    blocks = {block[1]["id"]: block for block in page.all("div", cls="branch")}
    parts = [(e, b, part) for e, example in enumerate(examples) for b, part in enumerate(example.branches)]
    assert list(blocks) == [f"r0e{e}b{b}" for e, b, _ in parts]
    for e, b, part in parts:
        block = blocks[f"r0e{e}b{b}"]
        assert f"--depth:{part.depth}" in block[1]["style"]
        assert f"{part.name} {part.stop - part.start} tokens" in block[2]
    assert len({re.search(r"--h:(\d+)", block[1]["style"])[1] for block in blocks.values()}) == len(parts) == 4
    assert [piece[1]["data-branch"] for piece in page.all("button", cls="piece")] == list(blocks)
    # The EOS at the end of every answer is learned, but no token of the row.
    assert [ghost[2] for ghost in page.all("span", cls="ghost")] == ["<|im_end|>"] * 3


def test_counts_of_a_row(page, row):
    facts = page.all("ul", cls="facts")[0][2]
    used = int((row["visible_until"] > 0).sum())
    for fact in (f"{used} of 600 tokens", "2 examples", "4 branches", "4 of 6 crops", "324 of 400 pooled tokens"):
        assert fact in facts
    assert f"{(row['loss_weights'] > 0).sum()} learned targets, weight {row['loss_weights'].sum():.2f}" in facts
    assert f"{600 - used} × padding" in page.all("article", cls="padding")[0][2]


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_the_masks_picture_is_the_mask(page, row):
    pixels = np.asarray(decode(page.all("image", cls="pairs")[0][1]["href"]))
    one = mask.Visibility(np.arange(600, dtype=np.int32), row["visible_until"], row["image_group"])
    allowed = np.asarray(mask.allowed(one, one))
    assert pixels.shape == (600, 600, 4)
    np.testing.assert_array_equal(pixels[..., 3] == 255, allowed)
    np.testing.assert_array_equal(pixels[..., 3] == 0, ~allowed)
    above = np.triu(allowed, 1)
    assert above.any()
    assert (pixels[above][:, :3] == mask_picture.BIDIRECTIONAL).all()
    assert (pixels[np.tril(allowed)][:, :3] == mask_picture.CAUSAL).all()


def test_the_script_gets_the_same_mask(page, row):
    runs = json.loads(page.all("section", id="row-0")[0][1]["data-runs"])
    starts = [start for start, _, _ in runs]
    lengths = np.diff([*starts, 600])
    np.testing.assert_array_equal(np.repeat([until for _, until, _ in runs], lengths), row["visible_until"])
    np.testing.assert_array_equal(np.repeat([group for _, _, group in runs], lengths), row["image_group"])


def test_frames_are_the_crops(page, row):
    captions = [caption[2] for caption in page.all("figcaption")]
    assert [c[:12] for c in captions] == ["0.0 s crop 0", "0.5 s crop 1", "1.0 s crop 2", "1.5 s crop 3"]
    for crop in range(4):
        (image,) = page.all("image", id=f"r0c{crop}")
        shown = np.asarray(decode(image[1]["href"]), np.int32)
        patches = row["crops"][crop].reshape(27, 27, 14, 14, 3)
        assert shown.shape == (378, 378, 3)
        # Frames differ by far more than the JPEG does.
        assert np.abs(shown[:14, 14:28] - patches[0, 1]).mean() < 8
        assert np.abs(shown[364:, 350:364] - patches[26, 25]).mean() < 8


def test_points_stand_where_the_answer_puts_them(page):
    rings = [(ring[1]["cx"], ring[1]["cy"]) for ring in page.all("circle", cls="ring")]
    assert rings == [("94.5", "94.5"), ("189.0", "189.0"), ("283.5", "189.0")]
    assert [name[2] for name in page.all("g", cls="point")] == ["1 black <car>", "2 black <car>", "3 black <car>"]
    captions = [caption[2].partition("crop")[2][2:] for caption in page.all("figcaption")]
    assert captions == ["", "1 point: black <car>", "2 points: black <car>", ""]


def test_points_on_no_frame_are_listed(row, tokenizer):
    (example, _) = read_row(row, tokenizer)
    reply = example.replies[0].__class__(1, '<points coords="0.5 1 100 100;9.0 2 100 100;1 3 100 100">bus</points>')
    example.replies[:] = [reply]
    html = film.film(0, row["crops"], example, [0, 0, 0])
    assert html.count('class="ring"') == 1
    assert "2 points are on none of these views: bus" in html


def test_an_example_without_answers_says_so(row, tokenizer, tmp_path):
    silent = row | {"loss_weights": np.zeros(600, np.float32)}
    inspect.write_page(tmp_path / "page.html", rows=[silent], tok=tokenizer, title="x")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [mark[2] for mark in page.all("em", cls="silent")] == ["learns nothing"] * 2
    assert not page.all("circle", cls="ring") and not page.all("span", cls="ghost")


def test_answers_stand_side_by_side(row, tokenizer, tmp_path):
    annotated = '<points coords="0.5 1 250 250;1.0 2 500 500">car</points>'
    generated = '<points coords="0.5 1 250 250;1.5 2 750 500">car</points>'
    answers = [Answer("Point to the black car.", annotated, generated), Answer(HOSTILE, HOSTILE, HOSTILE)]
    inspect.write_page(tmp_path / "page.html", rows=[row], tok=tokenizer, title="x", answers=answers)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1 and not page.all("img")
    first, second = page.all("article", cls="answer")
    assert annotated in first[2] and generated in first[2] and "different" in first[2]
    assert second[2].count(HOSTILE) == 3 and "equal" in second[2]
    assert [mark[2] for mark in page.all("mark")] == ["0", "500", "5", "750"]
    assert [use[1]["href"] for use in page.all("use")] == ["#r0c1", "#r0c2", "#r0c3"]
    shots = [figure for figure in page.all("figure") if "data-crop" not in figure[1]]
    assert [figure[2][-5:] for figure in shots] == ["0.5 s", "1.0 s", "1.5 s"]
    assert [path[1]["d"][:11] for path in page.all("path", cls="cross")] == ["M87.5 87.5l", "M276.5 182."]
    assert "1 of 2 generated answers equal" in page.all("section", cls="answers")[0][2]


def test_an_answer_is_drawn_on_the_example_that_asks_it(row, tokenizer, tmp_path, write_records):
    (record,) = load_records(write_records(VIDEO))
    text = answer_text(record.messages[0], record.media)
    empty = empty_row(RowShape(8, 1, 1, shards=1))
    answers = [Answer(CAR["user"], text, text), Answer("never asked", text, text)]
    inspect.write_page(tmp_path / "page.html", rows=[empty, row], tok=tokenizer, title="x", answers=answers)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [use[1]["href"] for use in page.all("use")] == ["#r1c1", "#r1c2"]


def test_a_broken_row_writes_nothing(row, tokenizer, tmp_path):
    broken = row | {"visible_until": np.full(600, 601, np.int32)}
    with pytest.raises(ValueError, match="begins an example"):
        inspect.write_page(tmp_path / "page.html", rows=[broken], tok=tokenizer, title="x")
    assert not (tmp_path / "page.html").exists()


def test_a_batch_is_its_rows(row):
    batch = {name: np.stack([array, array + 1]) for name, array in row.items()}
    rows = inspect.unbatch(batch | {"failures": [], "counts": {"examples": 2}})
    assert len(rows) == 2
    assert rows[0].keys() == row.keys()
    for name in row:
        np.testing.assert_array_equal(rows[0][name], row[name])
        np.testing.assert_array_equal(rows[1][name], row[name] + 1)
