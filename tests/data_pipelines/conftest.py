"""Records and examples for the tests of several packages."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.loading.dataset import open_dataset
from data_pipelines.media import video
from data_pipelines.sequence.example import describe


@pytest.fixture
def load(write_records):
    """The record of `messages` and media, read from a file."""

    def read(*messages, **media):
        path = write_records({"id": "street", "messages": list(messages), **media})
        return open_dataset(str(path)).record(0)

    return read


@pytest.fixture(scope="session")
def describe_record(tokenizer):
    """`describe` with the settings of a data config, for a dataset "street"."""

    def example(record, config, *, seed=0, high_res=0.0, dataset_weight=None):
        return describe(
            record,
            np.random.default_rng(seed),
            tokenizer,
            config.view,
            config.prompts,
            config.token_weights,
            dataset="street",
            high_res=high_res,
            dataset_weight=dataset_weight,
        )

    return example


@pytest.fixture
def draw(load, describe_record, data_config):
    """The example of a record of `messages` and media, by `config` or a config of short rows."""

    def example(*messages, config=None, seed=0, high_res=0.0, dataset_weight=None, **media):
        options = {"seed": seed, "high_res": high_res, "dataset_weight": dataset_weight}
        return describe_record(load(*messages, **media), config or data_config(), **options)

    return example


@pytest.fixture
def photo(folder):
    """A frame of the clip as a file, wider than high: 2x4 crops."""
    (frame,) = video.decode_frames(folder / "bikes.mp4", [4.0])
    Image.fromarray(frame).resize((1920, 1080)).save(folder / "photo.png")
    return folder / "photo.png"
