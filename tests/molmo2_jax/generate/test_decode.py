"""Decoding against the oracle: the whole model, run again on the sequence each time it has grown by a token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax import sharding
from molmo2_jax.generate.decode import decode, prefill
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.molmo2 import logits
from tests.molmo2_jax.models.small import KINDS, RUN, random_weights

ONE = (1, 1, 1, 1)
LENGTHS = np.int32([24, 9])
ROW, NEW = 26, 10  # tokens of a prompt's row, and how many new ones there is room for
NEVER = -1  # an EOS that is never generated
GREEDY = {"temperature": 0.0, "top_p": 1.0, "eos": NEVER, "run": RUN}
SAMPLED = GREEDY | {"temperature": 1.0, "top_p": 0.9}


def prompts(c, tokens=ROW):
    """A prompt with an image, 0 | 1..12 visual | 13..23 text, and a shorter one of text alone."""
    rng = np.random.default_rng(1)
    row = {name: np.stack([a] * 2) for name, a in empty_row(RowShape(tokens, 2, 12)).items()}
    for b, n in enumerate(LENGTHS):
        row["tokens"][b, :n] = rng.integers(0, c.llm.vocab, n)
        row["positions"][b, :n] = np.arange(n)
        row["visible_until"][b, :n] = n
    row["tokens"][0, 1:13] = c.llm.vocab + 2
    row["image_group"][0, 1:13] = 1
    row["crops"][0] = rng.integers(0, 256, row["crops"].shape[1:])
    row["pooling"][0] = rng.integers(0, 2 * 729, row["pooling"].shape[1:])
    row["visual_slots"][0] = np.arange(1, 13)
    return row


def model_on_mesh(kind, sizes):
    """(mesh, model on it); parameters are the same on every mesh.

    Embeddings are small next to what the layers add: a tied model with large embeddings repeats its last token.
    """
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS[kind])
        shardings = {name: a.sharding for name, a in s.abstract(mesh).items()}
        params = random_weights(s.shapes)
        params["llm/embed/base"] *= 0.1
        return mesh, s.model({name: jax.device_put(a, shardings[name]) for name, a in params.items()})


@functools.cache
def oracle(kind):
    """int32[2, NEW]: greedy tokens without a cache."""
    mesh, model = model_on_mesh(kind, ONE)
    row = prompts(KINDS[kind], ROW + NEW)

    @jax.jit
    def most_likely(model, row):
        return jnp.argmax(logits(model, model.hidden(model.embed(row, RUN), row, RUN)), axis=-1)

    out = np.zeros((2, NEW), np.int32)
    with jax.set_mesh(mesh):
        for t in range(NEW):
            every = np.asarray(most_likely(model, sharding.put_rows(row, mesh)))
            for b, n in enumerate(LENGTHS + t):
                out[b, t] = row["tokens"][b, n] = every[b, n - 1]
                row["positions"][b, n] = n
                row["visible_until"][b, : n + 1] = n + 1
    return out


def generate(kind, steps=(NEW,), sizes=ONE, only=slice(None), **sampling):
    """State after prefill and a `decode` for each of `steps`, as numpy. `only`: the prompts of the batch."""
    mesh, model = model_on_mesh(kind, sizes)
    with jax.set_mesh(mesh):
        row = sharding.put_rows({name: a[only] for name, a in prompts(KINDS[kind]).items()}, mesh)
        lengths = jax.device_put(LENGTHS[only], jax.NamedSharding(mesh, sharding.B))
        sampling = GREEDY | sampling
        state = prefill(model, row, lengths, jax.random.key(5), max_new=NEW, **sampling)
        for n in steps:
            state = decode(model, state, n, **sampling)
        return jax.device_get(state._replace(rng=jax.random.key_data(state.rng)))


@pytest.mark.parametrize("kind", ["qwen3_tied", "olmo3"])
def test_greedy_tokens_are_those_of_the_whole_model_without_a_cache(kind):
    state = generate(kind)
    np.testing.assert_array_equal(state.out_BT, oracle(kind))
    assert len(np.unique(state.out_BT)) > NEW  # a model that repeats itself would prove little
    assert state.count == NEW and not state.done_B.any()


def test_a_prompt_in_a_batch_gives_what_it_gives_alone():
    alone = [generate("olmo3", only=[b]).out_BT[0] for b in range(2)]
    np.testing.assert_array_equal(generate("olmo3").out_BT, alone)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_chunks_of_any_size_equal_one_loop(sampling):
    whole = generate("qwen3_tied", **sampling)
    for steps in ([1] * (NEW - 1), [3, 3, 3], [2, 0, 5, 100]):
        parts = generate("qwen3_tied", steps, **sampling)
        np.testing.assert_array_equal(parts.out_BT, whole.out_BT)
        np.testing.assert_array_equal(parts.rng, whole.rng)
        np.testing.assert_array_equal(parts.keys_LBSKH, whole.keys_LBSKH)


def test_sampling_follows_its_key():
    drawn = generate("qwen3_tied", **SAMPLED)
    np.testing.assert_array_equal(drawn.out_BT, generate("qwen3_tied", **SAMPLED).out_BT)
    assert (drawn.out_BT != oracle("qwen3_tied")).any()
    after = [generate("qwen3_tied", steps, **SAMPLED).rng for steps in ([], [1], [2])]
    assert len(np.unique(after, axis=0)) == 3  # no draw shares its key with another


def test_the_room_is_filled_and_never_overrun():
    full = generate("qwen3_tied", [NEW - 1])
    over = generate("qwen3_tied", [100, 100, 1])
    for state in (full, over):
        assert state.count == NEW and state.out_BT.shape == (2, NEW)
        np.testing.assert_array_equal(state.lengths_B, LENGTHS + NEW - 1)
        # The last chosen token is not in the cache; later entries were never written.
        assert state.keys_LBSKH.shape[2] == ROW + NEW
        assert not state.keys_LBSKH[:, 0, ROW + NEW - 2 :].any()
    np.testing.assert_array_equal(over.out_BT, full.out_BT)
    np.testing.assert_array_equal(over.keys_LBSKH, full.keys_LBSKH)


def test_chunks_add_up():
    for steps, count in (([], 1), ([1], 2), ([3], 4), ([3, 4], 8)):
        state = generate("qwen3_tied", steps)
        assert state.count == count
        np.testing.assert_array_equal(state.out_BT[:, :count], oracle("qwen3_tied")[:, :count])
        assert (state.out_BT[:, count:] == NEVER).all()


@pytest.mark.parametrize("end", [0, 2, 6])
def test_a_row_ends_at_eos_and_the_batch_with_its_last_row(end):
    tokens = oracle("olmo3")
    eos = int(tokens[0, end])
    ends = [[*np.flatnonzero(row == eos), NEW][0] for row in tokens]
    assert ends == {0: [0, NEW], 2: [2, NEW - 1], 6: [6, NEW]}[end]  # what this random model generates
    expected = np.where(np.arange(NEW) > np.array(ends)[:, None], eos, tokens)
    for steps in ([NEW], [2, 2, 2, 2, 2]):
        state = generate("olmo3", steps, eos=eos)
        np.testing.assert_array_equal(state.out_BT, expected)
        assert state.done_B.tolist() == [end < NEW for end in ends]
        assert state.count == NEW
    alone = generate("olmo3", eos=eos, only=[0])  # its loop ends with this row
    assert alone.count == end + 1 and alone.done_B.all()
    np.testing.assert_array_equal(alone.out_BT, expected[:1])


def test_a_mesh_changes_no_token():
    state = generate("qwen3_tied", sizes=(2, 1, 1, 2))
    np.testing.assert_array_equal(state.out_BT, oracle("qwen3_tied"))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="one new token = 1 cannot be divided into 2 shards"):
        generate("qwen3_tied", sizes=(1, 1, 2, 1))
    mesh, model = model_on_mesh("qwen3_tied", ONE)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="max_new is at least 1, not 0"):
        prefill(model, {}, LENGTHS, jax.random.key(0), max_new=0, **GREEDY)
