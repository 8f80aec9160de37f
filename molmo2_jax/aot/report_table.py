"""A report as text for a terminal or as Markdown: the same tables, with cells joined differently."""

from collections.abc import Callable, Iterable, Sequence

from molmo2_jax.aot.chips import GIB
from molmo2_jax.aot.report import Report

Row = Sequence[str]


def text(r: Report) -> str:
    """Tables with aligned columns."""
    return _document(r, _aligned, "{}\n")


def markdown(r: Report) -> str:
    """The same as Markdown."""
    return _document(r, _piped, "### {}\n")


def _document(r: Report, table: Callable[[Row, Sequence[Row]], str], heading: str) -> str:
    blocks = [r.verdict, table(("", ""), _summary(r))]
    for title, head, rows in _tables(r):
        if rows:
            blocks.append(heading.format(title) + table(head, rows))
    if r.warnings:
        blocks.append(heading.format("Warnings") + "\n".join(f"- {w}" for w in r.warnings))
    return "\n\n".join(blocks) + "\n"


def _summary(r: Report) -> list[Row]:
    s, flops = r.setting, sum(r.model_flops.values())
    mesh = " ".join(f"{axis}={size}" for axis, size in s["mesh"].items())
    rows = [
        ("model", f"{s['model']}, {s['parameters']:,} parameters"),
        ("topology", f"{s['topology']}, {s['chips']} chips, {mesh}"),
        (
            "batch",
            f"{s['batch']} rows of {s['seq_len']:,} tokens and {s['crops']} crops, {s['microbatches']} microbatches",
        ),
        ("run", f"attention {s['attention']}, remat {s['remat']}, ViT remat {s['vit_remat']}"),
        ("compiler", ", ".join(f"{k}={v}" for k, v in s["compiler"].items()) or "default options"),
        ("versions", ", ".join(f"{k} {v}" for k, v in r.versions.items())),
        ("compilation", f"{r.compile_seconds:.0f} s, {r.host_peak / GIB:.1f} GiB of host memory"),
    ]
    if r.memory:
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in r.memory.items() if name != "peak")
        rows.append(("HBM", f"{r.memory['peak'] / GIB:.2f} of {r.hbm / GIB:.2f} GiB per chip ({parts})"))
    if r.step_seconds:
        share = r.exposed_seconds / r.step_seconds
        rows += [
            ("FLOPs", f"model {flops:.4g} per step; executed {r.executed_flops * s['chips']:.4g}"),
            ("step", f"{r.step_seconds:.3f} s, of which {r.exposed_seconds:.3f} s ({share:.1%}) exposed collectives"),
            ("MFU", f"{r.mfu:.1%}, {r.tokens_per_second:,.0f} tokens/s"),
        ]
    return rows


def _tables(r: Report) -> Iterable[tuple[str, Row, list[Row]]]:
    step = r.step_seconds or 1.0
    yield (
        "Where the time goes",
        ("part", "s", "share", "MXU", "executed TFLOP per chip"),
        [
            (p.name, f"{p.seconds:.3f}", f"{p.seconds / step:.1%}", f"{p.mxu:.0%}", f"{p.flops / 1e12:.1f}")
            for p in r.parts
        ],
    )
    yield (
        "Collectives, per chip and step",
        ("kind", "axes", "count", "GB", "s", "exposed s"),
        [
            (m.kind, m.axes, f"{m.count:,}", f"{m.bytes / 1e9:.2f}", f"{m.seconds:.4f}", f"{m.exposed:.4f}")
            for m in r.collectives
        ],
    )
    yield (
        "Most expensive instructions",
        ("s", "share", "times", "MXU", "part", "source"),
        [
            (
                f"{t.seconds:.4f}",
                f"{t.seconds / step:.1%}",
                f"{t.times:,}",
                f"{t.mxu:.0%}",
                t.part,
                f"{t.source} `{t.name}`",
            )
            for t in r.top
        ],
    )


def _aligned(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, *rows] if any(head) else rows
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _piped(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
