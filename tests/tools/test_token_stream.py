import numpy as np
import pytest

from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.tools.row_view import crops_by_token
from molmo2_jax.tools.token_stream import KINDS, token_kinds, token_stream, vocabulary
from tests.tools import rows as by_hand
from tests.tools.rows import Said, Visual


@pytest.fixture(scope="module")
def row(tokenizer):
    seen = by_hand.video(tokenizer, [0.0, 0.5])
    chat = Said("Say <|im_end|>.", "<im_patch>", 0.25, (Said("More", "yes\n"), Said("Less", "no")))
    return by_hand.row(tokenizer, [(seen, [Said("Who?", "One rider.", 0.5)]), (Visual(), [chat])], 400, 2, 170)


@pytest.fixture(scope="module")
def stream(row, tokenizer):
    return token_stream(row, tokenizer, crops_by_token(row))


def spread(pairs, length):
    """Values of [start, *values] at every place."""
    starts = [start for start, *_ in pairs]
    return np.repeat([values for _, *values in pairs], np.diff([*starts, length]), axis=0)


def test_everything_can_be_had_back(row, stream):
    used = int((row["visible_until"] > 0).sum())
    assert 200 < used < 400
    np.testing.assert_array_equal(stream["ids"], row["tokens"][:used])
    np.testing.assert_allclose(spread(stream["weights"], used)[:, 0], row["loss_weights"][:used], rtol=1e-3)
    runs = spread(stream["runs"], 400)
    np.testing.assert_array_equal(runs[:, 1], row["visible_until"])
    np.testing.assert_array_equal(runs[:, 2], row["image_group"])
    starts = spread([[start, start] for start, *_ in stream["runs"]], 400)[:, 0]
    np.testing.assert_array_equal((runs[:, 0] + np.arange(400) - starts)[:used], row["positions"][:used])
    targets = np.append(row["tokens"][1:used], -1)
    for i, target in stream["targets"]:
        targets[i] = target
    np.testing.assert_array_equal(targets, row["targets"][:used])
    assert len(stream["runs"]) < 20 and len(stream["weights"]) < 20 and len(stream["targets"]) < 20


def test_patches_are_folded_with_their_crops(row, stream, tokenizer):
    patches = np.flatnonzero(row["tokens"] == tokenizer.special("<im_patch>"))
    assert [[start, stop - start, first, last] for start, stop, first, last in stream["folds"]] == [
        [patches[0], 81, 0, 0],
        [patches[81], 81, 1, 1],
    ]


def test_tokens_have_their_kinds(row, stream, tokenizer):
    kinds = token_kinds(row, tokenizer)
    assert stream["kinds"] == "".join(KINDS[kind] for kind in kinds[: len(stream["ids"])])
    said = {
        kind: tokenizer.decode([t for t, k in zip(row["tokens"], kinds, strict=True) if k == kind]) for kind in KINDS
    }
    assert said["visual"] == ("<im_start>" + "<im_patch>" * 81 + "<im_end>") * 2
    # What spells a control token in a text is text. The EOS that opens an example is no answer, that which ends one is.
    assert said["answer"] == "One rider.<im_patch><|im_end|>yes\nno"
    assert "Say <|im_end|>." in said["text"] and "<im_patch>" not in said["text"]
    assert said["control"].replace("<|im_start|>", "").replace("<|im_end|>", "") == ""


def test_control_characters_are_shown_as_pictures(tokenizer):
    ids = tokenizer.encode("a\x00\n\x1b")
    assert "".join(vocabulary(ids, tokenizer)[i] for i in ids) == "a␀\n␛"


def test_a_row_of_padding_has_no_tokens(tokenizer):
    row = empty_row(RowShape(8, 1, 1, 1))
    stream = token_stream(row, tokenizer, crops_by_token(row))
    assert stream == {"ids": [], "kinds": "", "runs": [[0, 0, 0, 0]], "weights": [], "targets": [], "folds": []}
