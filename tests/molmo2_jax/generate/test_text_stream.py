import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from molmo2_jax.generate.text_stream import TextStream

HALF = "\N{REPLACEMENT CHARACTER}"
ZEBRA = "Two 🦓🦓 — 你好!"


@pytest.fixture(scope="module")
def bytewise(tokenizer):
    """Ids that spell a text byte by byte: every character but the plain ones is spread over two to four tokens."""
    single = {}
    for i in range(256):
        (piece,) = tokenizer.pieces([i])
        single[int(piece[2:], 16) if piece.startswith("\\x") else ord(piece)] = i
    assert sorted(single) == list(range(256))
    return lambda text: [single[b] for b in text.encode()]


def pieces(tok, batches):
    stream = TextStream(tok)
    return [stream.add(batch, last=i == len(batches) - 1) for i, batch in enumerate(batches)]


def test_a_character_waits_for_its_last_byte(tokenizer, bytewise):
    ids = bytewise(ZEBRA)
    shown = pieces(tokenizer, [[i] for i in ids])
    assert "".join(shown) == ZEBRA
    assert [piece for piece in shown if piece] == list(ZEBRA)
    assert shown[4:8] == ["", "", "", "🦓"]


def test_pieces_are_whole_however_the_bytes_are_cut(tokenizer, bytewise):
    ids = bytewise(ZEBRA)
    for size in range(1, len(ids) + 1):
        shown = pieces(tokenizer, [ids[i : i + size] for i in range(0, len(ids), size)])
        assert "".join(shown) == ZEBRA
        assert HALF not in "".join(shown)


def test_half_a_character_is_shown_when_nothing_more_comes(tokenizer, bytewise):
    ids = bytewise("a🦓")[:-1]
    assert pieces(tokenizer, [ids[:3], ids[3:]]) == ["", "a" + HALF]


def test_no_tokens_are_no_text(tokenizer):
    assert pieces(tokenizer, [[], [], []]) == ["", "", ""]


@given(st.lists(st.lists(st.integers(0, 151_649) | st.integers(120, 256), max_size=6), min_size=1, max_size=8))
@example([[161], [100, 100], [], [151_645]])
def test_pieces_of_any_tokens_are_the_text_of_all(tokenizer, batches):
    assert "".join(pieces(tokenizer, batches)) == tokenizer.decode([i for batch in batches for i in batch])
