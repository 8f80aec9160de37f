"""From light records and media files to a prepared folder, which training reads (molmo2_jax/data/archive.py).

    NAME/
      records-00000-of-00001.array_record    light records as JSON
      media-00000.array_record               each medium once, as it is
      info.json                              {"examples": 3, "dataset": ..., "left_out": {"annotator unsure": 2, ...}}

The folder appears when it is whole. Every medium is probed here, so that training never has to; every record is read
back as training will, so that what cannot be used is counted here and not there.
"""

import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable

from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from data_pipelines.entry import Draft, Entry, PrepareError, Skipped
from molmo2_jax.data.archive import media_shard, record_shard
from molmo2_jax.data.failure import ExampleError, MediaError
from molmo2_jax.data.media import Location, open_image, open_video
from molmo2_jax.data.record import read_record

VERSION = "1.0.0"  # of what the builders make of published rows
MEDIA_SHARD_BYTES = 1 << 30
RECORDS_A_SHARD = 100_000
TAIL = 0.5  # s that a clip may outlast its file: tables state the film's length, a file at two frames a second its own


def write_folder(
    entry: Entry, drafts: Iterable[Draft], media: pathlib.Path, out: pathlib.Path, skipped: Skipped
) -> dict:
    """Writes the prepared folder `out` from drafts whose media are files of `media`; returns what info.json says.

    Raises PrepareError when `out` is there already, or when no record is left.
    """
    if out.exists():
        raise PrepareError(f"{out} is there already; remove it to prepare {entry.name} again")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        store = _MediaStore(media, unfinished)
        lines = list(_records(drafts, store, skipped))
        store.close()
        if not lines:
            raise PrepareError(f"{entry.name}: no record is left; left out were {dict(skipped)}")
        _write_records(lines, unfinished)
        info = {
            "examples": len(lines),
            "dataset": entry.name,
            "source": entry.hub,
            "version": VERSION,
            "license": entry.license,
            "media": store.count,
            "left_out": dict(sorted(skipped.items())),
        }
        (unfinished / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return info


def _records(drafts: Iterable[Draft], store: "_MediaStore", skipped: Skipped) -> Iterable[bytes]:
    """The lines of drafts whose media are there and which can be read as training reads them."""
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
    """Media in archives, each once, and what is known of them."""

    def __init__(self, source: pathlib.Path, folder: pathlib.Path):
        self.folder, self.count = folder, 0
        self._source, self._known = source, {}
        self._shard, self._entries, self._bytes, self._writer = -1, 0, 0, None

    def put(self, draft: Draft) -> Draft:
        """{"video": {"at": ..., "width": ...}} in place of a file's name. Raises ExampleError if it is no good."""
        found = {}
        for kind in ("video", "image"):
            if kind in draft:
                found[kind] = self._one(draft[kind], kind)
        if "images" in draft:
            found["images"] = [self._one(name, "image") for name in draft["images"]]
        if "clip" in draft and "video" in found:
            start, end = draft["clip"]
            duration = found["video"]["duration"]
            found["clip"] = [start, duration if duration < end <= duration + TAIL else end]
        return found

    def _one(self, medium: str | dict, kind: str) -> dict:
        name, sha256 = (medium, None) if isinstance(medium, str) else (medium["file"], medium["sha256"])
        if (name, kind) not in self._known:
            try:
                self._known[name, kind] = self._store(name, sha256, kind)
            except ExampleError as error:
                self._known[name, kind] = error
        known = self._known[name, kind]
        if isinstance(known, ExampleError):
            raise known
        return known

    def _store(self, name: str, sha256: str | None, kind: str) -> dict:
        location = Location(str(self._source), name)
        location.source()  # raises where there is no such file
        data = (self._source / name).read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise MediaError(f"{location}: not the file that was annotated, by its SHA-256", "other_file")
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
        """Finish the archive that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _write_records(lines: list[bytes], folder: pathlib.Path) -> None:
    shards = -(-len(lines) // RECORDS_A_SHARD)
    for shard in range(shards):
        writer = ArrayRecordWriter(str(folder / record_shard(shard, shards)), "group_size:1")
        for line in lines[shard * RECORDS_A_SHARD : (shard + 1) * RECORDS_A_SHARD]:
            writer.write(line)
        writer.close()
