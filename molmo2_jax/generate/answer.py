"""Answering prompts with a trained checkpoint: from text and media to text."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.data.config import DataConfig
from molmo2_jax.data.example import Example
from molmo2_jax.data.row import build_row
from molmo2_jax.data.schema import RowShape
from molmo2_jax.generate.decode import decode, prefill
from molmo2_jax.generate.text_stream import TextStream
from molmo2_jax.hf.config import MAX_POSITIONS
from molmo2_jax.hf.processor import read_processor
from molmo2_jax.models import config as models
from molmo2_jax.models import params as parameters
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.train import checkpoint
from molmo2_jax.train.config import ConfigError, read
from molmo2_jax.train.convert import PROCESSOR

_STREAM = 8  # tokens generated between two looks at them
_ROUND = 256  # lengths of rows are multiples of this many tokens


class Answerer:
    """A checkpoint and how to talk to it."""

    def __init__(self, directory: str | pathlib.Path, devices: Sequence[jax.Device] | None = None):
        """Loads parameters, config and tokenizer.

        Args:
          directory: a workdir, one step of it, or what `molmo2 convert` wrote.
          devices: what the model is spread over, along `tensor`; all by default.

        Raises:
          FileNotFoundError: there is no finished checkpoint, or not the tokenizer it was trained with.
          ConfigError: its config is not one, or its model cannot be cut for so many devices.
        """
        step = checkpoint.newest_step(directory)
        architecture = checkpoint.load_architecture(step)
        self.mesh = _tensor_mesh(architecture, jax.devices() if devices is None else devices)
        self._run, self.data = _settings(step, architecture)
        self.tok = Tokenizer.load(self.data.tokenizer, self.data.vocab_size)
        with jax.set_mesh(self.mesh):
            structure = parameters.structure(architecture)
            self._model = structure.model(checkpoint.load_params(step, structure, self.mesh))

    def answer(
        self,
        prompt: Example,
        *,
        max_new: int,
        temperature: float,
        top_p: float,
        seed: int,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The answer to a prompt of `example.describe_prompt`, without its EOS.

        Args:
          max_new: the answer ends after this many tokens if no EOS came.
          on_text: called with each new piece of text as it comes; together they are the answer.

        Raises:
          MediaError: the prompt's media cannot be decoded.
        """
        arrays, failures = build_row([prompt], _row_for(prompt), self.tok, self.data.length_weight)
        if failures:
            raise failures[0]
        eos = self.tok.eos_id
        sampling = {"temperature": temperature, "top_p": top_p, "eos": eos, "run": self._run}
        stream, text, seen = TextStream(self.tok), "", 0
        with jax.set_mesh(self.mesh):
            row = sharding.put_rows({name: a[None] for name, a in arrays.items()}, self.mesh)
            lengths = jax.device_put(np.int32([prompt.n_tokens]), jax.NamedSharding(self.mesh, sharding.B))
            state = prefill(self._model, row, lengths, jax.random.key(seed), max_new=max_new, **sampling)
            while True:
                count, (done,), (tokens,) = jax.device_get((state.count, state.done_B, state.out_BT))
                ended = bool(done) or count >= max_new
                piece = stream.add([t for t in tokens[seen:count].tolist() if t != eos], last=ended)
                text, seen = text + piece, count
                if piece and on_text is not None:
                    on_text(piece)
                if ended:
                    return text
                state = decode(self._model, state, _STREAM if on_text else max_new, **sampling)


def _row_for(prompt: Example) -> RowShape:
    """A row for one prompt, not much longer than it, so that prompts of about one length share a program."""
    return RowShape(-(-prompt.n_tokens // _ROUND) * _ROUND, prompt.n_crops, prompt.n_pooled, shards=1)


def _settings(step: pathlib.Path, a: models.Molmo2Config) -> tuple[models.RunConfig, DataConfig]:
    """How the model is run and how it sees: as it was trained, or as the processor it was converted with says."""
    tree = checkpoint.load_config(step)
    if tree is not None:
        c = read(tree)
        return c.model, c.data
    dtype = "bfloat16" if jax.default_backend() != "cpu" else "float32"  # CPUs have no fast bfloat16
    run = models.RunConfig(
        a.name,
        dtype,
        attention="blockwise",
        context="all_gather",
        token_order="contiguous",
        remat="none",
        vit_remat="none",
        loss_chunk=1,
        residual_dropout=0.0,
        response_dropout=0.0,
    )
    views = read_processor(step / PROCESSOR)
    data = DataConfig(
        mixture={},
        missing="stop",
        max_failure_rate=0.0,
        prompts="none",
        style_prefix="none",
        points_format="html-v2",
        token_weights="length",
        frame_sampling="uniform_last_frame",
        timestamps="per-frame-compact",
        subtitles="all",
        max_subtitle_tokens=None,
        high_res_crops=views.max_crops,
        max_images=MAX_POSITIONS,
        vision_shards=1,
        overflow="drop",
        workers=0,
        tokenizer=str(step / PROCESSOR),
        vocab_size=a.llm.vocab,
        seq_len=MAX_POSITIONS,
        crops=MAX_POSITIONS,
        pooled=MAX_POSITIONS,
        image_groups="example",
        length_weight=1.0,
        pool=1,
        prefetch=1,
        **dataclasses.asdict(views),
    )
    return run, data


def _tensor_mesh(a: models.Molmo2Config, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """All devices along `tensor`. Raises ConfigError naming the first number of the model they do not divide."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1) | {sharding.TENSOR: len(devices)}, devices)
    sizes = {
        "llm heads": a.llm.heads,
        "llm kv_heads": a.llm.kv_heads,
        "llm mlp": a.llm.mlp,
        "llm vocab": a.llm.vocab,
        "vit heads": a.vit.heads,
        "vit mlp": a.vit.mlp,
        "connector heads": a.connector.heads,
        "connector mlp": a.connector.mlp,
    }
    try:
        sharding.check_divides({name: (size, sharding.TENSOR) for name, size in sizes.items()}, mesh)
    except ValueError as error:
        raise ConfigError(f"{a.name} on {len(devices)} devices: {error}; let JAX see fewer devices") from error
    return mesh
