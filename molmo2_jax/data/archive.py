"""Archives: ArrayRecord files, whose entries are read by their number."""

from array_record.python import array_record_module

from molmo2_jax.data.failure import MediaError


def read_entry(path: str, index: int) -> bytes:
    """Entry `index` of an ArrayRecord file. Raises MediaError where the file has fewer."""
    reader = array_record_module.ArrayRecordReader(path)
    try:
        if index >= reader.num_records():
            raise MediaError(f"{path}#{index}: the file has {reader.num_records()} entries", "no_file")
        return reader.read([index])[0]
    finally:
        reader.close()
