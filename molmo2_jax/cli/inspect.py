"""`molmo2 inspect`: a page of the rows that a config trains on first."""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from data_pipelines.config import ConfigError
from molmo2_jax.cli import command
from molmo2_jax.sharding import CONTEXT
from molmo2_jax.train.config import read
from molmo2_jax.train.experiment import experiment_name
from molmo2_jax.train.setup import open_data, set_up
from molmo2_jax.viewer.answers import Answer, read_answers
from molmo2_jax.viewer.branch_gradients import GradientTable, gradient_tables
from molmo2_jax.viewer.page import render_batch, unbatch, write_page


def main(argv: list[str]) -> None:
    """Writes a page of the rows that a config trains on at its first step."""
    config = config_flags.DEFINE_config_file(
        "config", None, "Experiment file; keys after it: --config.data.loader.pool=16."
    )
    out = flags.DEFINE_string("out", None, "HTML file to write.")
    rows = flags.DEFINE_integer("rows", 4, "How many rows of the first batch to show, at most.", lower_bound=1)
    answers = flags.DEFINE_string("answers", None, "JSON lines from `molmo2 generate --out`, shown above the rows.")
    gradients = flags.DEFINE_bool("gradients", False, "Also check by gradient that no branch attends to another.")
    flags.mark_flags_as_required(["config", "out"])

    def inspect() -> int:
        c = read(config.value.to_dict())
        setup = set_up(c) if gradients.value else None
        data = open_data(c, None if setup is None else setup.architecture)
        batch = data.first_batch(seed=c.seed, rows=min(rows.value, c.batch), streams=c.batch)
        tables = [] if setup is None else gradient_tables(setup, unbatch(batch), seed=c.seed)
        page = render_batch(
            batch,
            data,
            experiment=experiment_name(config_flags.get_config_filename(flags.FLAGS[config.name])),
            vision_shards=c.mesh[CONTEXT],
            answers=_read_answers(answers.value),
            gradients=tables,
        )
        write_page(out.value, page)
        for table in tables:
            print(table.text())
        print(f"wrote {out.value}")
        return _report_leaks(tables)

    command.run(inspect, argv)


def _report_leaks(tables: Sequence[GradientTable]) -> int:
    """Prints which gradients are wrong, if there are tables; the exit status is 1 if any is."""
    leaks = [leak for table in tables for leak in table.leaks()]
    if tables:
        print(f"wrong gradients: {', '.join(leaks)}" if leaks else "every gradient is zero exactly where it must be")
    return int(bool(leaks))


def _read_answers(path: str | None) -> list[Answer]:
    try:
        return [] if path is None else read_answers(path)
    except ValueError as error:
        raise ConfigError(f"--answers: {error}") from error
