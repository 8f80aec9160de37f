"""Datasets as TFDS knows them: versions, splits, checksums and shards of what an entry makes of published rows.

    data_dir/molmo2_cap/1.0.0/    molmo2_cap-train.array_record-00000-of-00001    {"record": b'{"id": ...}'} an example

TFDS holds the light records; media stay where they were downloaded to, and are stored once, by the folder that training
reads (folder.py). Neither needs tensorflow: TFDS writes and reads ArrayRecords without it.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.entry import Draft, Entry
from data_pipelines.folder import VERSION


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: no public bucket knows these datasets, and TFDS, asking, leaves a temporary folder behind."""


def builder(entry: Entry, made: Iterator[Draft], data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """The TFDS builder of an entry, with the drafts `made` of its published rows for examples."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = entry.name
        VERSION = tfds.core.Version(VERSION)
        pkg_dir_path = pathlib.Path(__file__).parent

        def _info(self) -> _Info:
            return _Info(
                builder=self,
                description=f"{entry.hub} as light records ({entry.license}).",
                features=tfds.features.FeaturesDict({"record": np.object_}),
                disable_shuffling=True,  # training has its own order, and what is built twice must be equal
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, draft in enumerate(made):
                yield number, {"record": json.dumps(draft, ensure_ascii=False).encode()}

    return Builder(data_dir=str(data_dir), file_format="array_record")


def drafts(built: tfds.core.DatasetBuilder) -> Iterator[Draft]:
    """The records of a built dataset, in its order."""
    source = built.as_data_source(split="train")
    for index in range(len(source)):
        yield json.loads(source[index]["record"])
