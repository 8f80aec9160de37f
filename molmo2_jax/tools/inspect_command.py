"""`molmo2 inspect`."""

import numpy as np
from absl import flags
from ml_collections import config_flags

from molmo2_jax.data import loader
from molmo2_jax.data.config import DataConfig
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.tools import command
from molmo2_jax.tools.branch_gradients import GradientTable, gradient_tables
from molmo2_jax.tools.compare import Answer, read_answers
from molmo2_jax.tools.inspect import unbatch, write_page
from molmo2_jax.train.config import ConfigError, read


def main(argv: list[str]) -> None:
    """Writes a page of the rows a config trains on at its first step."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.data.pool=16.")
    out = flags.DEFINE_string("out", None, "The page to write, an HTML file.")
    rows = flags.DEFINE_integer("rows", 4, "Rows of the first batch to show, if it has as many.", lower_bound=1)
    answers = flags.DEFINE_string("answers", None, "JSON lines from `molmo2 generate --out`, shown above the rows.")
    gradients = flags.DEFINE_bool("gradients", False, "Also show that branches are blind to each other, by gradient.")
    flags.mark_flags_as_required(["config", "out"])

    def inspect() -> int:
        c = read(config.value.to_dict())
        batch = first_batch(c.data, c.seed, min(rows.value, c.batch), c.batch)
        first = unbatch(batch)
        tables = gradient_tables(c, first) if gradients.value else []
        names = ", ".join(name for group in c.data.mixture.values() for name in group.datasets)
        title = f"{len(first)} {'row' if len(first) == 1 else 'rows'} of {names}"
        tok = Tokenizer.load(c.data.tokenizer, c.data.vocab_size)
        write_page(
            out.value,
            rows=first,
            tok=tok,
            title=title,
            examples=batch["examples"],
            answers=_answers(answers.value),
            gradients=tables,
            vision_shards=c.data.vision_shards,
        )
        for table in tables:
            print(table.text())
        print(f"wrote {out.value}")
        return _verdict(tables)

    command.run(inspect, argv)


def first_batch(data: DataConfig, seed: int, rows: int, batch: int) -> dict:
    """What the loader gives for the first `rows` of the `batch` rows of step 0. RecordError names all wrong records."""
    batches = loader.make_loader(data, seed=seed, rows=range(rows), streams=batch)
    try:
        return next(batches)
    finally:
        batches.close()


def first_rows(data: DataConfig, seed: int, rows: int, batch: int) -> list[dict[str, np.ndarray]]:
    """Its rows alone."""
    return unbatch(first_batch(data, seed, rows, batch))


def _verdict(tables: list[GradientTable]) -> int:
    """Exit status 1 when a gradient is not zero where it must be, or zero where it must not."""
    leaks = [leak for table in tables for leak in table.leaks()]
    if tables:
        print(f"wrong gradients: {', '.join(leaks)}" if leaks else "every gradient is zero exactly where it must be")
    return int(bool(leaks))


def _answers(path: str | None) -> list[Answer]:
    try:
        return [] if path is None else read_answers(path)
    except ValueError as error:
        raise ConfigError(f"--answers: {error}") from error
