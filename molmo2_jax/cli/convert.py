"""`molmo2 convert`."""

import pathlib

import ml_dtypes
import numpy as np
import tqdm
from absl import flags

from data_pipelines.config import ConfigError
from molmo2_jax.cli import command
from molmo2_jax.weights.convert import hf_to_orbax, orbax_to_hf
from molmo2_jax.weights.hf import gguf
from molmo2_jax.weights.hf.source import LAYOUTS

DTYPES = {"keep": None, "float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

_HELP = {
    "from": "What to convert: hf:FOLDER, hf:gs://… or hf:ORG/NAME (a Molmo2), orbax:FOLDER (a workdir, a step or a "
    "converted checkpoint), gguf:FILE (a Llama-style language model).",
    "to": "A folder that does not exist yet: orbax:FOLDER from hf:, hf:FOLDER from orbax: and gguf:.",
    "layout": "To hf: only: tensor names as in the released checkpoints or as transformers has them in memory; it "
    "loads both.",
    "dtype": "To hf: only: what weights are rounded to; keep does not change them.",
    "max_positions": "To hf: only: longest sequence that config.json allows, tokens; by default that of the "
    "source's config.json, else 36,864 or the training row, whichever is longer.",
}


def main(argv: list[str]) -> None:
    """Converts a checkpoint; the target is written whole or not at all."""
    flags.DEFINE_string("from", None, _HELP["from"])
    flags.DEFINE_string("to", None, _HELP["to"])
    layout = flags.DEFINE_enum("layout", "released", sorted(LAYOUTS), _HELP["layout"])
    dtype = flags.DEFINE_enum("dtype", "keep", sorted(DTYPES), _HELP["dtype"])
    positions = flags.DEFINE_integer("max_positions", None, _HELP["max_positions"], lower_bound=1)
    flags.mark_flags_as_required(["from", "to"])

    def convert() -> int:
        kind, source = _kind_and_path("from", flags.FLAGS["from"].value, ("hf", "orbax", "gguf"))
        to, path = _kind_and_path("to", flags.FLAGS["to"].value, ("hf", "orbax"))
        target = pathlib.Path(path)
        if "://" in path:
            raise ConfigError(f"--to={to}:{path}: must be a local or mounted folder; copy it from there")
        if (kind, to) == ("hf", "orbax"):
            print(hf_to_orbax(source, target))
        elif (kind, to) == ("orbax", "hf"):
            options = {"layout": layout.value, "dtype": DTYPES[dtype.value], "max_positions": positions.value}
            print(orbax_to_hf(source, target, **options))
        elif (kind, to) == ("gguf", "hf"):
            with tqdm.tqdm(unit="B", unit_scale=True, desc=source) as bar:
                gguf.write_directory(pathlib.Path(source), target, bar.update)
            print(f"{target}: the model of {source}, in float32")
        else:
            raise ConfigError(f"--from={kind}:… --to={to}:… : possible are hf to orbax, orbax to hf and gguf to hf")
        return 0

    command.run(convert, argv)


def _kind_and_path(flag: str, value: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    """The two parts of a flag: "hf:runs/export" -> ("hf", "runs/export")."""
    kind, _, path = value.partition(":")
    if kind not in kinds or not path:
        raise ConfigError(f"--{flag}={value}: must begin with {' or '.join(f'{k}:' for k in kinds)}")
    return kind, path
