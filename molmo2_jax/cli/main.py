"""The `molmo2` command and its subcommands. Flags are absl's; each key of a config is a flag, too.

molmo2 train    --config=experiments/overfit_video_point.py --workdir=runs/demo --config.optim.groups.llm.lr=1e-3
molmo2 generate --checkpoint=runs/demo --video=clip.mp4 --prompt="Point to the penguins."
molmo2 convert  --from=hf:allenai/Molmo2-4B --to=orbax:checkpoints/molmo2_4b
molmo2 inspect  --config=experiments/overfit_video_point.py --out=page.html
molmo2 aot      --config=experiments/stage2_sft.py:8b --topology=v5p:4x4x4
"""

import importlib
import sys

COMMANDS = {
    "train": "train from a config, or continue from the last checkpoint in --workdir",
    "generate": "answer a prompt about a video or images, or all prompts of a config's records",
    "convert": "convert checkpoints between Hugging Face and Orbax, and import GGUF weights",
    "inspect": "write a page of packed rows: tokens, weights, branches, masks, frames with their points",
    "aot": "compile the training step ahead of time for a TPU slice: memory, step time, MFU, collectives",
}


def usage() -> str:
    """The help text: one line per command."""
    lines = [f"  molmo2 {name:<9} {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: molmo2 COMMAND --flag=value …   (molmo2 COMMAND --help lists the flags)", *lines])


def main() -> None:
    """Entry point of the console script."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        help_wanted = name in ("-h", "--help", "help")
        text = usage() if help_wanted else f"molmo2: unknown command {name!r}\n{usage()}"
        print(text, file=sys.stdout if help_wanted else sys.stderr)
        sys.exit(0 if help_wanted else 2)
    importlib.import_module(f"molmo2_jax.cli.{name}").main([f"molmo2 {name}", *sys.argv[2:]])
