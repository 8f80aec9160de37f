"""Plans that yield gray crops, or do to the decoding process what bad media do."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from data_pipelines.errors import MediaError
from data_pipelines.media.crops import PATCH_PIXELS, PATCHES


@dataclasses.dataclass(frozen=True)
class Gray:
    """A crop for each of `values`."""

    values: tuple[int, ...]
    location: str = "gray.png"

    def crops(self):
        for value in self.values:
            yield np.full((PATCHES, PATCH_PIXELS), value, np.uint8)


@dataclasses.dataclass(frozen=True)
class Broken(Gray):
    """Cut off after `values`."""

    def crops(self):
        yield from super().crops()
        raise MediaError(f"{self.location}: cut off", "cut_off")


@dataclasses.dataclass(frozen=True)
class Deadly(Gray):
    """Kills its process after `values`."""

    signal: int = signal.SIGSEGV

    def crops(self):
        yield from super().crops()
        os.kill(os.getpid(), self.signal)
        time.sleep(60)


@dataclasses.dataclass(frozen=True)
class Bug(Gray):
    """Raises an error that is not the media's."""

    def crops(self):
        return iter([{}["no such key"]])


@dataclasses.dataclass(frozen=True)
class Slow(Gray):
    """Writes its process id to a file, then takes its time."""

    seconds: float = 60.0

    def crops(self):
        begun = Path(f"{self.location}.{os.getpid()}")
        begun.write_text(str(os.getpid()))
        begun.rename(self.location)  # atomic: the file is never empty
        time.sleep(self.seconds)
        yield from super().crops()


@dataclasses.dataclass(frozen=True)
class Confess(Gray):
    """Raises an error with the process id, its blocked signals and its imported modules."""

    def crops(self):
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise MediaError(f"{os.getpid()}; {[s.name for s in blocked]}; {sorted(sys.modules)}")
