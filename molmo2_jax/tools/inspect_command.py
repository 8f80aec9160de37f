"""`molmo2 inspect`."""

import pathlib

from absl import flags
from ml_collections import config_flags

from molmo2_jax.data import loader
from molmo2_jax.data.config import DataConfig
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.tools import command
from molmo2_jax.tools.compare import Answer, read_answers
from molmo2_jax.tools.inspect import unbatch, write_page
from molmo2_jax.train.config import ConfigError, read


def main(argv: list[str]) -> None:
    """Writes a page of the rows a config trains on at its first step."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.data.pool=16.")
    out = flags.DEFINE_string("out", None, "The page to write, an HTML file.")
    rows = flags.DEFINE_integer("rows", 4, "Rows of the first batch to show, if it has as many.", lower_bound=1)
    answers = flags.DEFINE_string("answers", None, "JSON lines from `molmo2 generate --out`, shown above the rows.")
    flags.mark_flags_as_required(["config", "out"])

    def inspect() -> int:
        c = read(config.value.to_dict())
        draw(c.data, c.seed, out.value, min(rows.value, c.batch), _answers(answers.value))
        print(f"wrote {out.value}")
        return 0

    command.run(inspect, argv)


def draw(data: DataConfig, seed: int, out: str, rows: int, answers: list[Answer]) -> None:
    """The page of the first `rows` rows of step 0. Raises RecordError, naming every record that is wrong."""
    batches = loader.make_loader(data, seed=seed, rows=range(rows))
    try:
        first = next(batches)
    finally:
        batches.close()
    names = ", ".join(pathlib.Path(path).name for path in data.records)
    title = f"{rows} {'row' if rows == 1 else 'rows'} of {names}"
    tok = Tokenizer.load(data.tokenizer, data.vocab_size)
    write_page(out, rows=unbatch(first), tok=tok, title=title, answers=answers)


def _answers(path: str | None) -> list[Answer]:
    try:
        return [] if path is None else read_answers(path)
    except ValueError as error:
        raise ConfigError(f"--answers: {error}") from error
