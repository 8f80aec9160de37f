"""`molmo2 aot`."""

import pathlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from molmo2_jax.tools import command
from molmo2_jax.tools.aot import analysis, report, table
from molmo2_jax.train.config import read

TOO_BIG = 3  # exit status where the step does not fit the chips' memory


def main(argv: list[str]) -> None:
    """Compiles the training step for TPUs that are not there and reports its cost; status 3 if it does not fit."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.mesh.fsdp=16.")
    topology = flags.DEFINE_string("topology", None, "Slice to compile for: v4, v5e, v5p, v6e or tpu7x, as v5p:4x4x4.")
    out = flags.DEFINE_string("out", None, "Folder for report.json and report.md.")
    dump = flags.DEFINE_string(
        "dump", None, "Folder for the compiled program: step.hlo.txt, memory.json, model_flops.json."
    )
    flags.mark_flags_as_required(["config", "topology"])

    def aot() -> int:
        jax.config.update("jax_platforms", "cpu")  # where there are TPUs they are left alone
        done = analysis.analyse(
            read(config.value.to_dict()), topology.value, None if dump.value is None else pathlib.Path(dump.value)
        )
        if out.value is not None:
            folder = pathlib.Path(out.value)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.json").write_text(report.to_json(done))
            (folder / "report.md").write_text(table.markdown(done))
        print(table.text(done), end="")
        if not done.fits:
            print(f"molmo2 aot: {done.verdict}", file=sys.stderr)
        return 0 if done.fits else TOO_BIG

    command.run(aot, argv)
