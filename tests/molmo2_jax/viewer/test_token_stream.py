import numpy as np
import pytest

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax.viewer.row_reader import crops_by_token
from molmo2_jax.viewer.token_stream import KINDS, token_kinds, token_stream, vocabulary
from tests.molmo2_jax.viewer import rows as by_hand
from tests.molmo2_jax.viewer.rows import Turn, Visual


@pytest.fixture(scope="module")
def row(tokenizer):
    clip = by_hand.video(tokenizer, [0.0, 0.5])
    chat = Turn("Say <|im_end|>.", "<im_patch>", 0.25, (Turn("More", "yes\n"), Turn("Less", "no")))
    return by_hand.row(tokenizer, [(clip, [Turn("Who?", "One rider.", 0.5)]), (Visual(), [chat])], 400, 2, 170)


@pytest.fixture(scope="module")
def stream(row, tokenizer):
    return token_stream(row, tokenizer, crops_by_token(row))


def spread(pairs, length):
    """[start, *values] of runs -> the values at every index."""
    starts = [start for start, *_ in pairs]
    return np.repeat([values for _, *values in pairs], np.diff([*starts, length]), axis=0)


def test_the_row_can_be_rebuilt_from_the_lists(row, stream):
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
    texts = {
        kind: tokenizer.decode([t for t, k in zip(row["tokens"], kinds, strict=True) if k == kind]) for kind in KINDS
    }
    assert texts["visual"] == ("<im_start>" + "<im_patch>" * 81 + "<im_end>") * 2
    # Text that spells a control token is text. The EOS that opens an example is not an answer, the one that ends it is.
    assert texts["answer"] == "One rider.<im_patch><|im_end|>yes\nno"
    assert "Say <|im_end|>." in texts["text"] and "<im_patch>" not in texts["text"]
    assert texts["control"].replace("<|im_start|>", "").replace("<|im_end|>", "") == ""


def test_control_characters_are_shown_as_pictures(tokenizer):
    ids = tokenizer.encode("a\x00\n\x1b")
    assert "".join(vocabulary(ids, tokenizer)[i] for i in ids) == "a␀\n␛"


def test_a_row_of_padding_has_no_tokens(tokenizer):
    row = empty_row(RowShape(8, 1, 1))
    stream = token_stream(row, tokenizer, crops_by_token(row))
    assert stream == {"ids": [], "kinds": "", "runs": [[0, 0, 0, 0]], "weights": [], "targets": [], "folds": []}
