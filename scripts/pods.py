"""Writes docs/pods.md: the cost of each model's training step on each slice, predicted by `molmo2 aot`.

    python -m scripts.pods                compiles all runs, one after the other: minutes each
    python -m scripts.pods 8b v5p         only the runs that have all these words in their names
    python -m scripts.pods --page         writes the page again and compiles nothing

docs/pods.json has the figures of every run, so that one run can be updated without the others.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import tqdm

from molmo2_jax.aot import kernel_cost
from molmo2_jax.aot.chips import CHIPS, GIB

ROOT = pathlib.Path(__file__).parents[1]
PAGE, FIGURES = ROOT / "docs" / "pods.md", ROOT / "docs" / "pods.json"

STAGES = {"16k": "experiments/stage2_sft.py", "37k": "experiments/stage3_long_context.py"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of the page. `overrides`: the config keys that differ from the experiment on this topology."""

    model: str
    stage: str
    topology: str
    overrides: Mapping[str, object]

    @property
    def name(self) -> str:
        return f"{self.model} {self.stage} {self.topology}"


def mesh(fsdp: int, context: int = 1, tensor: int = 1, **others) -> dict[str, object]:
    """Overrides of a mesh, and of other keys, with `__` for their dots."""
    keys = {"mesh.fsdp": fsdp, "mesh.context": context, "mesh.tensor": tensor}
    return keys | {key.replace("__", "."): value for key, value in others.items()}


MODELS = ("4b", "8b", "o7b")
# Balances causal rows that are sharded over context; the recipe's rows have bidirectional videos.
CAUSAL = {"model__token_order": "zigzag"}
SMALLEST = {"model__remat": "full", "model__vit_remat": "full", "model__context": "ulysses", "model__loss_chunk": 512}
MESHES = {
    ("16k", "v5p:4x4x4"): {},
    ("37k", "v5p:4x4x4"): {},
    ("16k", "v5e:16x16"): mesh(64, 4, microbatches=1, model__remat="full", model__vit_remat="full", **CAUSAL),
    ("37k", "v5e:16x16"): mesh(32, 8, microbatches=4, **SMALLEST),
    ("16k", "v6e:16x16"): mesh(64, 4, microbatches=1, model__remat="qkv", model__vit_remat="attention", **CAUSAL),
    ("37k", "v6e:16x16"): mesh(64, 4, microbatches=2, model__remat="qkv", model__vit_remat="full", **CAUSAL),
}
EXCEPTIONS = {  # further overrides, with which these runs fit
    "8b 37k v5e:16x16": mesh(16, 8, 2, microbatches=8, model__context="all_gather", **CAUSAL),
    # Under all_gather the keys and values of 32 heads would be 1.6 GB.
    "o7b 16k v5e:16x16": mesh(64, 4, microbatches=2, model__remat="attention", model__context="ulysses"),
}
RUNS = tuple(
    Run(model, stage, topology, keys | EXCEPTIONS.get(f"{model} {stage} {topology}", {}))
    for (stage, topology), keys in MESHES.items()
    for model in MODELS
)

# MaxText, predicted in the same way (August 2026): (setting, step s, MFU, exposed s, peak GB).
MAXTEXT = (
    ("16,384 tokens, batch 64, full remat, its defaults", 4.50, 0.475, 0.120, 17.9),
    ("the same, splash attention with blocks of 1,024 x 512, 80 MiB of VMEM", 3.73, 0.573, 0.120, 17.9),
    ("16,384, batch 64, remat minimal_with_context, SparseCore offload", 3.78, 0.566, 0.068, 63.9),
    ("36,864, batch 16, context 4, full remat, 80 MiB of VMEM", 3.16, 0.496, 0.169, 11.4),
)

FIELDS = ("setting", "versions", "fits", "verdict", "hbm", "memory", "compile_seconds", "host_peak", "model_flops")
FIELDS += ("executed_flops", "step_seconds", "exposed_seconds", "mfu", "tokens_per_second", "parts", "collectives")
FIELDS += ("top", "warnings")


def compile_run(run: Run) -> dict:
    """The FIELDS of a run's report; {"error": ...} if there is no report."""
    with tempfile.TemporaryDirectory() as folder:
        config = f"--config={ROOT / STAGES[run.stage]}:{run.model}"
        keys = [f"--config.{key}={value}" for key, value in run.overrides.items()]
        command = [sys.executable, "-m", "molmo2_jax.cli", "aot", config, f"--topology={run.topology}", *keys]
        done = subprocess.run([*command, f"--out={folder}"], capture_output=True, text=True, check=False)
        path = pathlib.Path(folder) / "report.json"
        if not path.exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("molmo2 aot:")]
            return {"error": errors[-1] if errors else f"exit status {done.returncode}"}
        report = json.loads(path.read_text())
    return {name: report[name] for name in FIELDS}


def page(figures: Mapping[str, dict]) -> str:
    """The Markdown of all runs that have figures, in the order of RUNS."""
    results = [(run, figures[run.name]) for run in RUNS if run.name in figures]
    blocks = [INTRODUCTION, _table(results), _overrides(), "## MaxText for comparison", _maxtext()]
    blocks += ["## Where the time goes", _parts(results)]
    blocks += ["## Most expensive instructions", *_costs(results), "## Warnings", _warnings(results)]
    blocks += ["## Constants", _constants(), _compiler(results)]
    return "\n\n".join(blocks) + "\n"


INTRODUCTION = """# Pods: the cost of a training step

Predictions from the compiler's schedules (`molmo2 aot`), not measurements on TPUs. `python -m scripts.pods` writes this
page: it compiles the step of every row below from its experiment file.

A batch is 128 full rows: all tokens in use and causal, every crop a video frame of 81 visual tokens, loss on all other
tokens. MFU counts 6 FLOPs per weight and token, the causal half of attention, the ViT and the connector, and no
recomputation. The time of attention is that of the busiest device along `context`."""


def _table(results: Sequence[tuple[Run, dict]]) -> str:
    head = ("model", "tokens", "slice", "mesh", "remat (LLM, ViT)", "HBM GiB", "step s", "exposed", "MFU")
    head += ("tokens/s/chip", "compilation")
    rows = []
    for run, r in results:
        if "error" in r:
            rows.append((run.model, run.stage, run.topology, r["error"], *("",) * (len(head) - 4)))
            continue
        s = r["setting"]
        sizes = " ".join(f"{axis} {n}" for axis, n in s["mesh"].items() if n > 1)
        sizes += f", {s['microbatches']} microbatches" if s["microbatches"] > 1 else ""
        peak = f"{r['memory']['peak'] / GIB:.1f} of {r['hbm'] / GIB:.2f}" if r["memory"] else r["verdict"]
        rows.append(
            (
                s["model"],
                f"{s['seq_len']:,}",
                run.topology,
                sizes,
                f"{s['remat']}, {s['vit_remat']}",
                peak if r["fits"] else f"**{peak}: does not fit**",
                f"{r['step_seconds']:.2f}",
                f"{r['exposed_seconds'] / (r['step_seconds'] or 1):.1%}",
                f"{r['mfu']:.1%}",
                f"{r['tokens_per_second'] / s['chips']:,.0f}",
                f"{r['compile_seconds']:.0f} s, {r['host_peak'] / GIB:.1f} GiB",
            )
        )
    return _markdown(head, rows)


def _overrides() -> str:
    """The overrides of every slice."""
    named = [(f"{stage} {topology}", keys) for (stage, topology), keys in MESHES.items()] + list(EXCEPTIONS.items())
    lines = [
        f"* {name}: " + (", ".join(f"`{key}={value}`" for key, value in keys.items()) or "none") for name, keys in named
    ]
    return "Overrides of the experiment's values:\n\n" + "\n".join(lines)


def _maxtext() -> str:
    head = ("MaxText, Qwen3-8B, text only, v5p:4x4x4", "step s", "MFU", "exposed", "peak GB")
    rows = [(setting, f"{s:.2f}", f"{mfu:.1%}", f"{e / s:.1%}", f"{peak}") for setting, s, mfu, e, peak in MAXTEXT]
    return _markdown(head, rows)


def _parts(results: Sequence[tuple[Run, dict]]) -> str:
    names = list(dict.fromkeys(p["name"] for _, r in results for p in r.get("parts", ())))
    rows = []
    for run, r in results:
        by_name = {p["name"]: p for p in r.get("parts", ())}
        if by_name:
            step = r["step_seconds"]
            rows.append((run.name, *(f"{by_name[n]['seconds'] / step:.1%}" if n in by_name else "" for n in names)))
    return "Shares of the step.\n\n" + _markdown(("run", *names), rows)


def _costs(results: Sequence[tuple[Run, dict]]) -> list[str]:
    blocks = []
    for run, r in results:
        if r.get("top") and (run.model, run.topology) == ("8b", "v5p:4x4x4"):
            rows = [
                (
                    f"{t['seconds']:.3f}",
                    f"{t['seconds'] / r['step_seconds']:.1%}",
                    f"{t['mxu']:.0%}",
                    t["part"],
                    t["source"],
                )
                for t in r["top"]
            ]
            blocks.append(f"{run.name}:\n\n" + _markdown(("s", "share", "MXU", "part", "source"), rows))
    return blocks


def _warnings(results: Sequence[tuple[Run, dict]]) -> str:
    """Large collectives, loops without a trip count, and the compiler's warnings."""
    lines = []
    for run, r in results:
        warnings = [f"  * {w.partition(': ')[0] if w.startswith('all-') else w}" for w in r.get("warnings", ())]
        lines += [f"* {run.name}:", *warnings] if warnings else [f"* {run.name}: none"]
    return "\n".join(lines)


def _constants() -> str:
    head = ("chip", "HBM GiB", "HBM GB/s", "peak TFLOP/s", "clock GHz", "ICI GB/s per link and direction")
    rows = [
        (
            c.name,
            f"{c.hbm / GIB:.2f}",
            f"{c.hbm_rate / 1e9:.0f}",
            f"{c.peak / 1e12:.1f}",
            f"{c.clock / 1e9}",
            f"{c.link / 1e9:.0f}",
        )
        for c in CHIPS
    ]
    shares = ", ".join(f"{name} {share:.0%}" for name, (_, share) in kernel_cost.KERNELS.items())
    return (
        _markdown(head, rows)
        + f"\n\nAssumed shares of the peak of the Pallas kernels, on the tiles that they visit: {shares}."
    )


def _compiler(results: Sequence[tuple[Run, dict]]) -> str:
    compilers = dict.fromkeys(
        f"{', '.join(f'{k} {v}' for k, v in r['versions'].items())}; "
        + (", ".join(f"`{k}={v}`" for k, v in r["setting"]["compiler"].items()) or "default options")
        for _, r in results
        if "versions" in r
    )
    return "Compiled with:\n\n" + "\n".join(f"- {line}" for line in compilers)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def main(words: Sequence[str]) -> None:
    """Compiles the runs that have all `words` in their names, none for `--page`, and writes the page."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if list(words) == ["--page"]:
        PAGE.write_text(page(figures))
        return
    chosen = [run for run in RUNS if all(word in run.name for word in words)]
    if not chosen:
        sys.exit(f"no run has all of {list(words)} in its name; the runs are {[run.name for run in RUNS]}")
    PAGE.parent.mkdir(exist_ok=True)
    for run in tqdm.tqdm(chosen, unit="run"):
        figures[run.name] = compile_run(run)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        PAGE.write_text(page(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
