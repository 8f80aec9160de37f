"""Any tree of any annotations is laid out in a row and read back from it, as a model would have to answer."""

import json
import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.row import lay_out_row
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.packing.vision_shards import place
from data_pipelines.records.annotations import POINT_MARK, AnyOf, InlinePoints, Points, Tracks
from data_pipelines.records.read import read_record
from data_pipelines.sequence import visual_layout
from data_pipelines.text.points import parse_points
from molmo2_jax.viewer.row_reader import read_row, replies

VIDEO = {"at": "clip.mp4", "width": 1000, "height": 1000, "duration": 2.0}
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>\x00"), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text
)
SPECIAL = st.sampled_from(["<|im_end|>", "<im_patch>", "a<|im_start|>b", "<im_end> {label}", "<|video|>"])
NUMBER = st.integers(0, 1000)
PLACE = st.fixed_dictionaries({"time": st.sampled_from([0.0, 0.5, 1.0, 2.0]), "x": NUMBER, "y": NUMBER})
POINTS = st.fixed_dictionaries({"label": WORDS, "points": st.lists(PLACE, max_size=5)})
TRACK = st.fixed_dictionaries(
    {
        "label": WORDS,
        "fps": st.just(2),
        "tracks": st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5]), min_size=1, max_size=4, unique=True).flatmap(
            lambda times: st.tuples(
                *(
                    st.fixed_dictionaries(
                        {
                            "time": st.just(time),
                            "points": st.dictionaries(st.sampled_from("abc"), st.tuples(NUMBER, NUMBER), min_size=1),
                        }
                    )
                    for time in times
                )
            )
        ),
    }
)


def message(children):
    then = {} if children is None else {"then": children}

    def base(style, **rest):
        return st.fixed_dictionaries({"style": st.just(style), **rest}, optional=then)

    options = st.lists(WORDS, min_size=2, max_size=5, unique=True)
    inline = POINTS.filter(lambda points: points["points"])
    return st.one_of(
        base("user_qa", question=WORDS | SPECIAL, answer=WORDS | SPECIAL),
        base("video_short_answer", question=WORDS, answer=st.lists(WORDS, min_size=1, max_size=3)),
        base("video_multiple_choice", question=WORDS, options=options, correct=st.just(1)),
        base("video_point", answer=POINTS),
        base("video_point_count", question=WORDS, answer=POINTS),
        base("video_point_track_per_frame", answer=TRACK),
        base("user_qa", question=WORDS, answer=st.just(f"It is {POINT_MARK} here."), points=st.tuples(inline)),
    )


def trees(depth):
    below = None if depth == 0 else trees(depth - 1)
    one = message(below)
    return st.lists(
        st.one_of(one, st.fixed_dictionaries({"any": st.lists(one, min_size=1, max_size=2)})), min_size=1, max_size=3
    )


@settings(max_examples=40)
@given(messages=trees(2), seed=st.integers(0, 9), templates=st.booleans())
def test_a_tree_of_annotations_is_read_back_from_its_row(
    tokenizer, data_config, describe_record, messages, seed, templates
):
    line = json.dumps({"id": "x", "video": VIDEO, "messages": messages, "frame_rates": [2]}).encode()
    config = data_config(templates=templates, style_prefix="demo_or_style", max_frames=8)
    record = read_record(line, "/nowhere", "a.jsonl:1")
    example = describe_record(record, config, seed=seed)
    shape = RowShape(example.n_tokens + 3, example.n_crops, example.n_pooled)
    row = empty_row(shape)
    lay_out_row(row, [example], place([example.units], shape, shards=1), tokenizer, 4.0)

    # EOS is the only special token among the targets with weight. It ends every answer.
    supervised = row["loss_weights"] > 0
    special = {tokenizer.special(name) for name in (*visual_layout.VISUAL, "<|im_start|>", "<|endoftext|>")}
    assert not special & set(row["targets"][supervised].tolist())
    ends = np.flatnonzero(supervised & ~np.append(supervised[1:], False))
    assert (row["targets"][ends] == tokenizer.eos_id).all()
    assert (row["targets"][supervised] == tokenizer.eos_id).sum() == len(example.turns)

    # Positions continue from the parent's end, and a token is visible to the end of its subtree.
    root = 1 + example.visual.n_tokens
    starts = np.cumsum([root] + [_length(example.turns, i) for i in range(len(example.turns))])
    for index, turn in enumerate(example.turns):
        first = root if turn.parent < 0 else row["positions"][starts[turn.parent + 1] - 1] + 1
        assert row["positions"][starts[index]] == first
        last = max([index, *(i for i in range(len(example.turns)) if _descends(example.turns, i, index))])
        assert set(row["visible_until"][starts[index] : starts[index + 1]]) == {starts[last + 1]}

    # The answers are those of the turns, and point at what was annotated.
    (found,) = read_row(row, tokenizer)
    read = sorted(reply.text for reply in replies(row, tokenizer, found.branches))
    assert read == sorted(tokenizer.decode(turn.answer) for turn in example.turns)
    annotated = list(_annotated(record.messages))
    for text in read:
        for tag in parse_points(text):
            assert (tag.kind, tag.label, sorted((p.key, p.x, p.y) for p in tag.points)) in annotated


def _annotated(messages):
    """(kind, label, sorted places) of all points and tracks of a tree. The tokenizer composes characters, NFC."""
    for one in messages:
        if isinstance(one, AnyOf):
            yield from _annotated(one.choices)
            continue
        yield from _annotated(one.then)
        for answer in one.answer.points if isinstance(one.answer, InlinePoints) else [one.answer]:
            if isinstance(answer, Points):
                places = [(point.key, point.x, point.y) for point in answer.points]
                yield "points", unicodedata.normalize("NFC", answer.label), sorted(places)
            if isinstance(answer, Tracks):
                places = [(frame.time, *place) for frame in answer.frames for place in frame.points.values()]
                yield "tracks", unicodedata.normalize("NFC", answer.label), sorted(places)


def _length(turns, index):
    turn = turns[index]
    return len(turn.user) + len(turn.answer) + any(other.parent == index for other in turns)


def _descends(turns, index, ancestor):
    while index >= 0:
        index = turns[index].parent
        if index == ancestor:
            return True
    return False
