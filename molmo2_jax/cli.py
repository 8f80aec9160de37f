"""The `molmo2` command: one door, a subcommand each. Flags are absl's; every config key can be overridden.

molmo2 train    --config=experiments/overfit_video_point.py --workdir=runs/demo --config.optim.groups.llm.lr=1e-3
molmo2 generate --checkpoint=runs/demo --video=clip.mp4 --prompt="Point to the penguins."
molmo2 convert  --from=hf:allenai/Molmo2-4B --to=orbax:checkpoints/molmo2_4b
molmo2 inspect  --config=experiments/overfit_video_point.py --out=page.html
molmo2 aot      --config=experiments/stage2_sft.py:8b --topology=v5p:4x4x4
"""

import importlib
import sys

COMMANDS = {
    "train": "train from a config, or go on with what is in --workdir",
    "generate": "answer a prompt about a video or images, or all prompts of a config's records",
    "convert": "Hugging Face checkpoints to Orbax and back",
    "inspect": "a page of packed rows: tokens, weights, branches, masks, frames with their points",
    "aot": "compile the training step for TPUs that are not there: memory, step time, MFU, collectives",
}


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  molmo2 {name:<9} {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: molmo2 COMMAND --flag=value …   (molmo2 COMMAND --help lists the flags)", *lines])


def main() -> None:
    """Entry point of the console script."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        asked = command in ("-h", "--help", "help")
        print(
            usage() if asked else f"molmo2: no command {command!r}\n{usage()}", file=sys.stdout if asked else sys.stderr
        )
        sys.exit(0 if asked else 2)
    importlib.import_module(f"molmo2_jax.tools.{command}_command").main([f"molmo2 {command}", *sys.argv[2:]])


if __name__ == "__main__":
    main()
