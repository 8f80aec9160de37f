"""Datasets in TFDS: versions, splits, checksums and shards of the drafts that an entry makes of published rows.

    data_dir/pixmo_points_train/2.0.0/pixmo_points_train-train.array_record-00000-of-00001
                                      {"record": b'{"id": ..., "image": "9f.jpg", ...}'} per example

TFDS stores the drafts only. Their media stay where they were downloaded, until folder.py copies each of them once into
the folder that training reads. TFDS writes and reads ArrayRecord files without tensorflow.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.datasets.core.entry import Entry
from data_pipelines.datasets.core.folder import VERSION
from data_pipelines.records.write import Draft, write_draft


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: no public bucket has these datasets, and asking for them leaves a temporary folder behind."""


def builder(entry: Entry, drafts: Iterator[Draft], data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """The TFDS builder of an entry, whose examples are `drafts`."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = entry.name
        VERSION = tfds.core.Version(VERSION)
        pkg_dir_path = pathlib.Path(__file__).parent

        def _info(self) -> _Info:
            return _Info(
                builder=self,
                description=f"{entry.hub} as records ({entry.license}).",
                features=tfds.features.FeaturesDict({"record": np.object_}),
                disable_shuffling=True,  # training has its own order, and two builds of the same rows must be equal
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, draft in enumerate(drafts):
                yield number, {"record": json.dumps(write_draft(draft), ensure_ascii=False).encode()}

    return Builder(data_dir=str(data_dir), file_format="array_record")


def stored_drafts(built: tfds.core.DatasetBuilder) -> Iterator[dict]:
    """The drafts of a built dataset in their order, as JSON objects."""
    source = built.as_data_source(split="train")
    for index in range(len(source)):
        yield json.loads(source[index]["record"])
