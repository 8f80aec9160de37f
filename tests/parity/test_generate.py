"""Greedy generation: our prefill and decode against transformers' `generate`, token by token."""

import functools

import jax
import numpy as np
import pytest
import torch

from molmo2_jax import sharding
from molmo2_jax.generate.decode import decode, prefill
from tests.molmo2_jax.models.small import RUN
from tests.molmo2_jax.weights.hf.small_hf import mesh, structure
from tests.parity import cases, ours, theirs

NEW = 48
KINDS = ("qwen3_tied", "olmo3")  # the head that distinguishes the third is a matter of logits
GREEDY = {"temperature": 0.0, "top_p": 1.0, "eos": -1, "run": RUN}  # an EOS that is never generated


@functools.cache
def our_tokens(kind: str) -> dict[str, np.ndarray]:
    """The answer to each medium's prompt, int32[NEW], all of them in one batch."""
    s = structure(cases.KINDS[kind])
    prompts = [cases.case(medium, answered=False) for medium in cases.MEDIA]
    with jax.set_mesh(mesh()):
        model = s.model(ours.put_on_mesh(s, cases.varied(cases.weights(s.shapes))))
        row = sharding.put_rows(cases.batch(prompts), mesh())
        lengths = jax.device_put(np.int32([case.tokens for case in prompts]), jax.NamedSharding(mesh(), sharding.B))
        state = prefill(model, row, lengths, jax.random.key(0), max_new=NEW, **GREEDY)
        state = decode(model, state, NEW, **GREEDY)
    assert state.count == NEW
    return dict(zip(cases.MEDIA, np.asarray(state.out_BT), strict=True))


@functools.cache
def their_tokens(kind: str, media: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(int64[B, NEW] tokens, float32[B, NEW] lead of their logits over the second best, in standard deviations)."""
    model = theirs.loaded(kind, change=cases.varied)[0]
    given = theirs.inputs(media, answered=False)
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    out = model.generate(**given, **options, output_logits=True, return_dict_in_generate=True)
    logits = torch.stack(out.logits, 1)
    best, second = logits.topk(2).values.unbind(-1)
    return out.sequences[:, given["input_ids"].shape[1] :].numpy(), ((best - second) / logits.std()).numpy()


@pytest.mark.parametrize("medium", cases.MEDIA)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_transformers(kind, medium):
    (want,), (lead,) = their_tokens(kind, (medium,))
    assert len(want) == NEW and len(np.unique(want)) > NEW // 2  # a model that repeats itself would prove little
    assert lead.min() > 1e-3  # far more than the difference between the two sides
    np.testing.assert_array_equal(our_tokens(kind)[medium], want)


@pytest.mark.parametrize("kind", KINDS)
def test_unequal_prompts_are_answered_as_in_a_left_padded_batch(kind):
    np.testing.assert_array_equal(
        [our_tokens(kind)[medium] for medium in cases.BATCH], their_tokens(kind, cases.BATCH)[0]
    )
