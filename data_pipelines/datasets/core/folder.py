"""Writes a prepared folder, which training reads (data_pipelines/media/archive.py), from drafts and media files.

    NAME/
      records-00000-of-00001.array_record    records as JSON
      media-00000.array_record               the bytes of each medium, once
      info.json                              {"examples": 3, "dataset": ..., "skipped": {"annotator unsure": 2, ...}}

The folder appears only when it is complete. Every medium is probed here, so that training need not probe it. Every
record is read back here as training will read it, so that errors are counted now and not during a run.
"""

import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from data_pipelines.datasets.core.entry import Entry, PrepareError, Skipped
from data_pipelines.errors import ExampleError, MediaError
from data_pipelines.media.archive import media_shard, record_shard
from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_image, open_video
from data_pipelines.records.read import read_record

VERSION = "2.0.0"  # of what the builders make of published rows
MEDIA_SHARD_BYTES = 1 << 30
RECORDS_PER_SHARD = 100_000
# Seconds that a clip may end after its file: tables give the original duration, files were resampled to 2 frames/s.
MAX_CLIP_OVERRUN = 0.5


def write_folder(
    entry: Entry, drafts: Iterable[dict], media: pathlib.Path, out: pathlib.Path, skipped: Skipped
) -> dict:
    """Writes the prepared folder `out`; returns the content of its info.json.

    `drafts`: as records/write.py: write_draft gives them; their media are files of the folder `media`. Raises
    PrepareError when `out` exists, or when no record is left.
    """
    if out.exists():
        raise PrepareError(f"{out} already exists; remove it to prepare {entry.name} again")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        store = _MediaStore(media, unfinished)
        lines = list(_record_lines(drafts, store, skipped))
        store.close()
        if not lines:
            raise PrepareError(f"{entry.name}: no record is left; left out: {dict(skipped)}")
        _write_records(lines, unfinished)
        info = {
            "examples": len(lines),
            "dataset": entry.name,
            "source": entry.hub,
            "version": VERSION,
            "license": entry.license,
            "media": store.count,
            "skipped": dict(sorted(skipped.items())),
        }
        (unfinished / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return info


def _record_lines(drafts: Iterable[dict], store: "_MediaStore", skipped: Skipped) -> Iterator[bytes]:
    """One line of JSON per draft. A draft is skipped, and counted, if its media or its annotations cannot be used."""
    for draft in tqdm(drafts, unit="record", disable=None):
        try:
            line = json.dumps(draft | store.put(draft), ensure_ascii=False).encode()
            read_record(line, str(store.folder), draft["id"])
        except ExampleError as error:
            skipped[error.reason] += 1
            tqdm.write(str(error))
        else:
            yield line


class _MediaStore:
    """Copies media into archives, each medium once, and keeps what probing them found."""

    def __init__(self, source: pathlib.Path, folder: pathlib.Path):
        self.folder, self.count = folder, 0
        self._source = source
        self._stored: dict[tuple[str, str], dict | ExampleError] = {}
        self._shard, self._entries, self._bytes, self._writer = -1, 0, 0, None

    def put(self, draft: dict) -> dict:
        """The keys that replace those of the draft: {"video": {"at": ..., "width": ..., ...}, "clip": [...]}.

        Raises ExampleError for a medium that cannot be used.
        """
        replaced = {}
        for kind in ("video", "image"):
            if kind in draft:
                replaced[kind] = self._store_once(draft[kind], kind)
        if "images" in draft:
            replaced["images"] = [self._store_once(image, "image") for image in draft["images"]]
        if "clip" in draft and "video" in replaced:
            start, end = draft["clip"]
            duration = replaced["video"]["duration"]
            replaced["clip"] = [start, duration if duration < end <= duration + MAX_CLIP_OVERRUN else end]
        return replaced

    def _store_once(self, medium: str | dict, kind: str) -> dict:
        name, sha256 = (medium, None) if isinstance(medium, str) else (medium["file"], medium["sha256"])
        if (name, kind) not in self._stored:
            try:
                self._stored[name, kind] = self._store(name, sha256, kind)
            except ExampleError as error:
                self._stored[name, kind] = error
        stored = self._stored[name, kind]
        if isinstance(stored, ExampleError):
            raise stored
        return stored

    def _store(self, name: str, sha256: str | None, kind: str) -> dict:
        location = Location(str(self._source), name)
        location.source()  # raises MediaError if there is no such file
        data = (self._source / name).read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise MediaError(f"{location}: its SHA-256 is not that of the annotated file", "wrong_file")
        if kind == "video":
            medium = open_video(location, None)
            facts = {"width": medium.width, "height": medium.height, "duration": medium.duration}
        else:
            width, height = open_image(location).size
            facts = {"width": width, "height": height}
        if self._writer is None or self._bytes + len(data) > MEDIA_SHARD_BYTES:
            self.close()
            self._shard, self._entries, self._bytes = self._shard + 1, 0, 0
            self._writer = ArrayRecordWriter(str(self.folder / media_shard(self._shard)), "group_size:1,uncompressed")
        self._writer.write(data)
        at = f"{media_shard(self._shard)}#{self._entries}"
        self._entries, self._bytes, self.count = self._entries + 1, self._bytes + len(data), self.count + 1
        return {"at": at, **facts}

    def close(self) -> None:
        """Completes the archive that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _write_records(lines: Sequence[bytes], folder: pathlib.Path) -> None:
    shards = -(-len(lines) // RECORDS_PER_SHARD)
    for shard in range(shards):
        writer = ArrayRecordWriter(str(folder / record_shard(shard, shards)), "group_size:1")
        for line in lines[shard * RECORDS_PER_SHARD : (shard + 1) * RECORDS_PER_SHARD]:
            writer.write(line)
        writer.close()
