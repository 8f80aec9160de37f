"""Plans that draw their crops, or do to the process that decodes them what bad media do."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.schema import PATCH_PIXELS, PATCHES


@dataclasses.dataclass(frozen=True)
class Gray:
    """A crop for each of `values`."""

    values: tuple[int, ...]
    location: str = "gray.png"

    def views(self):
        for value in self.values:
            yield np.full((PATCHES, PATCH_PIXELS), value, np.uint8)


@dataclasses.dataclass(frozen=True)
class Broken(Gray):
    """Cut off after `values`."""

    def views(self):
        yield from super().views()
        raise MediaError(f"{self.location}: cut off", "cut_off")


@dataclasses.dataclass(frozen=True)
class Deadly(Gray):
    """Kills its process after `values`."""

    signal: int = signal.SIGSEGV

    def views(self):
        yield from super().views()
        os.kill(os.getpid(), self.signal)
        time.sleep(60)


@dataclasses.dataclass(frozen=True)
class Bug(Gray):
    """Meets an error that is ours."""

    def views(self):
        return iter([{}["no such key"]])


@dataclasses.dataclass(frozen=True)
class Slow(Gray):
    """Makes a file of its process's number, then takes its time."""

    seconds: float = 60.0

    def views(self):
        begun = Path(f"{self.location}.{os.getpid()}")
        begun.write_text(str(os.getpid()))
        begun.rename(self.location)  # there is no moment at which it is empty
        time.sleep(self.seconds)
        yield from super().views()


@dataclasses.dataclass(frozen=True)
class Confess(Gray):
    """Says by its error which process decodes it, which signals that one does not see and what it has imported."""

    def views(self):
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise MediaError(f"{os.getpid()}; {[s.name for s in blocked]}; {sorted(sys.modules)}")
