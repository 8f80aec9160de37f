"""The Python API: load a model and ask it, train from an experiment, look at a packed row.

`import molmo2_jax as m2` gives these names; this module is imported when one of them is first used.
"""

import dataclasses
import html
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from data_pipelines.config import ConfigError
from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import FramesMedium, ImageMedium, Media, open_image, open_video
from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.generate import answer as answering
from molmo2_jax.generate.grounded_answer import Answer, Point, Track
from molmo2_jax.generate.load import LoadedModel, load_model
from molmo2_jax.sharding import CONTEXT
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.experiment import load_config, read_experiment
from molmo2_jax.train.setup import open_data
from molmo2_jax.viewer.page import page_title, render_page, unbatch, write_page

__all__ = ["Answer", "Model", "Page", "Point", "Track", "load", "load_config", "show_row"]

ImageInput = str | pathlib.Path | Image.Image | np.ndarray  # an array is uint8[H, W, 3]
Frames = tuple[Sequence[Image.Image | np.ndarray] | np.ndarray, Sequence[float]]  # frames, and the seconds of each
VideoInput = str | pathlib.Path | Frames


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
        media = _open_media(image, video, clip)
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
        example = describe_prompt(prompt, _open_media(image, video, clip), self.loaded.tok, self.loaded.view)
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
    path = str(source).removeprefix("orbax:")
    if "://" in path and not path.startswith("hf:"):
        raise ConfigError(f"{source}: checkpoints are read from local or mounted folders; mount or copy the bucket")
    return Model(load_model(path, devices))


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
    loader = data.loader(seed=c.seed, rows=range(min(rows, c.batch)), streams=c.batch)
    try:
        batch = next(loader)
    finally:
        loader.close()
    name = pathlib.Path(config.partition(":")[0]).stem if isinstance(config, str) else "config"
    title, shards = page_title(name, list(data.settings)), c.mesh[CONTEXT]
    page = render_page(rows=unbatch(batch), tok=data.tok, title=title, examples=batch["examples"], vision_shards=shards)
    return Page(page)


def _open_media(
    image: ImageInput | Sequence[ImageInput], video: VideoInput | None, clip: tuple[float, float] | None
) -> Media:
    images = list(image) if isinstance(image, list | tuple) else [image]
    if video is not None and images:
        raise ValueError("a prompt is about images or a video, not both")
    if clip is not None and not isinstance(video, str | pathlib.Path):
        raise ValueError("clip is a part of a video file: give its path as `video`")
    if video is None:
        return tuple(_open_image(one, number) for number, one in enumerate(images, start=1))
    if isinstance(video, str | pathlib.Path):
        return (open_video(Location.of(video), clip),)
    frames, times = video
    array = np.stack([_pixels(frame) for frame in frames])
    if len(times) != len(array) or not (np.diff(times) > 0).all():
        raise ValueError(f"{len(array)} frames need as many times, in ascending order; got {list(times)}")
    return (FramesMedium(InMemory("frames", b""), array, tuple(map(float, times))),)


def _open_image(image: ImageInput, number: int) -> ImageMedium:
    if isinstance(image, str | pathlib.Path):
        return open_image(Location.of(image))
    encoded = io.BytesIO()
    Image.fromarray(_pixels(image)).save(encoded, "PNG")  # lossless
    return open_image(InMemory(f"image {number}", encoded.getvalue()))


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"an image is a path, a PIL image or uint8[H, W, 3], not {pixels.dtype}{list(pixels.shape)}")
    return pixels
