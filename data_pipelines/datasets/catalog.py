"""The datasets that can be prepared, by name. Importing them needs neither TFDS nor pyarrow."""

from data_pipelines.datasets import molmo2_cap, molmo2_video_point, pixmo_points
from data_pipelines.datasets.core.entry import Entry

ENTRIES: dict[str, Entry] = {
    entry.name: entry for module in (molmo2_video_point, molmo2_cap, pixmo_points) for entry in module.ENTRIES
}
