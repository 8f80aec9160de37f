"""The Python API: load a model and ask it, train from an experiment, look at a packed row.

`import molmo2_jax as m2` gives these names; this module is imported when one of them is first used.
"""

import dataclasses
import html
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.generate import answer as answering
from molmo2_jax.generate.grounded_answer import Answer, Point, Track
from molmo2_jax.generate.load import LoadedModel, load_model
from molmo2_jax.generate.prompt_media import ImageInput, VideoInput, open_media
from molmo2_jax.sharding import CONTEXT
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.experiment import experiment_name, load_config, read_experiment
from molmo2_jax.train.setup import open_data
from molmo2_jax.viewer.page import render_batch, write_page

__all__ = ["Answer", "Model", "Page", "Point", "Track", "load", "load_config", "show_row"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that answers; `load` makes one."""

    loaded: LoadedModel

    def ask(
        self,
        prompt: str,
        *,
        image: ImageInput | Sequence[ImageInput] = (),
        video: VideoInput | None = None,
        clip: tuple[float, float] | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Answer:
        """The answer to a prompt about an image, several images, a video or nothing.

            answer = model.ask("Point to the penguins.", video="clip.mp4")
            answer.points   ->   (Point(time=1.5, x=602.0, y=853.2, object=1, label='penguins', image=None), ...)

        Args:
          image: a path, a PIL image or uint8[H, W, 3]; or a list of them.
          video: a path, or (frames, times): frames as PIL images or uint8[H, W, 3], and the seconds of each.
          clip: start and end in seconds: the part of a video file to look at.
          max_new_tokens: the answer ends after so many tokens at the latest.
          temperature: 0 takes the most likely token.
          top_p: share of probability to sample from, in (0, 1].

        Raises:
          MediaError, ExampleError: a medium cannot be read, or the clip is not inside its video.
          ValueError: arguments that do not go together.
        """
        media = open_media(image, video, clip)
        sampling = {"max_new": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        example = describe_prompt(prompt, media, self.loaded.tok, self.loaded.view)
        return Answer(prompt, answering.answer(self.loaded, example, **sampling), media)

    def stream(
        self,
        prompt: str,
        *,
        image: ImageInput | Sequence[ImageInput] = (),
        video: VideoInput | None = None,
        clip: tuple[float, float] | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """The pieces of the text as they come; together they are the text that `ask` gives for the same arguments."""
        example = describe_prompt(prompt, open_media(image, video, clip), self.loaded.tok, self.loaded.view)
        return answering.stream(
            self.loaded, example, max_new=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
        )


def load(source: str | pathlib.Path, *, devices: Sequence[jax.Device] | None = None) -> Model:
    """A model to ask.

    Args:
      source: a workdir of a training run, one of its steps, or what `molmo2 convert` wrote, with or without "orbax:";
        or "hf:" and a folder, a URL or a name on the hub: "hf:allenai/Molmo2-4B".
      devices: the model is sharded over these; all by default.

    Raises:
      FileNotFoundError, HfError, CheckpointError, ConfigError: the source cannot be read or used; the message names it.
    """
    return Model(load_model(source, devices))


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of packed rows: shown inline by notebooks, or saved as one self-contained file."""

    page: str

    def save(self, path: str | pathlib.Path) -> None:
        """Write the page to an HTML file."""
        write_page(path, self.page)

    def _repr_html_(self) -> str:
        return f'<iframe style="width:100%;height:720px;border:0" srcdoc="{html.escape(self.page)}"></iframe>'


def show_row(
    config: str | ConfigDict | TrainConfig, *, rows: int = 1, overrides: Mapping[str, Any] | None = None
) -> Page:
    """The first `rows` rows that a config trains on, as a page: tokens, weights, mask, frames and their points."""
    c = read_experiment(config, overrides)
    data = open_data(c)
    batch = data.first_batch(seed=c.seed, rows=min(rows, c.batch), streams=c.batch)
    name = experiment_name(config) if isinstance(config, str) else "config"
    return Page(render_batch(batch, data, experiment=name, vision_shards=c.mesh[CONTEXT]))
