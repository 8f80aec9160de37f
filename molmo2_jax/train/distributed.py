"""Several processes that train together, as a rule one a host: how they find each other, and how they stop together.

What the environment says                                         Who says how many there are, and where
  JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID      you do: all three, in every process
  SLURM_NTASKS > 1 in a step of srun                              SLURM; jax reads it
  a TPU host of GKE (XPK), or a TPU VM                            TPU_WORKER_HOSTNAMES or the metadata server; jax asks
  anything else                                                   nobody: one process, and nothing is started

How they stop                      seen by                                     the others
  SIGTERM to one of them           jax's preemption service, within a second   save the same step, exit status 143
  an error in one of them          `together`, within a second                 say which and what, exit status 1
  one is killed, its host lost     jax's heartbeats, within HEARTBEAT seconds  are aborted with jax's own message
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax._src import distributed as runtime  # the key-value store between processes; Orbax takes it from here, too
from jax.experimental import multihost_utils

from molmo2_jax.train.config import ConfigError

ADDRESS, NUMBER, INDEX = PLAIN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
POLL = 0.5  # seconds between looks at whether others have stopped
PAUSE = 0.05  # seconds between looks at what others have told
ANSWER = 10  # seconds that the first process waits for the others to leave after an error
GATHER = 600  # seconds to wait for what another process has to tell: it may be reading a slow disk

STOPPED, LEFT, TOLD = "molmo2/stopped/", "molmo2/left/", "molmo2/told/"  # folders of the key-value store


def start() -> None:
    """Starts `jax.distributed` if the environment says that this is one process of several. Before any device is used.

    Raises:
      ConfigError: a part of the three variables is missing or no number.
    """
    plain = {name: os.environ[name] for name in PLAIN if name in os.environ}
    if NUMBER in plain or INDEX in plain or (plain and not _jax_finds_others()):
        address, number, index = _check(plain)
        if number == 1:
            return
        # "deactivate": inside a SLURM job jax would take one device a task.
        where = {"coordinator_address": address, "num_processes": number, "process_id": index}
        jax.distributed.initialize(**where, cluster_detection_method="deactivate", heartbeat_timeout_seconds=HEARTBEAT)
    elif _jax_finds_others():
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
    else:
        return
    here = jax.local_devices()
    print(
        f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: "
        f"{len(here)} of {jax.device_count()} devices ({here[0].device_kind})",
        file=sys.stderr,
        flush=True,
    )


def _check(plain: dict[str, str]) -> tuple[str, int, int]:
    """Address, number of processes and index of this one."""
    missing = [name for name in PLAIN if name not in plain]
    if missing:
        raise ConfigError(f"{', '.join(plain)} is set, but not {', '.join(missing)}: several processes need all three")
    for name in (NUMBER, INDEX):
        if not plain[name].isdecimal():
            raise ConfigError(f"{name} = {plain[name]!r} is no number")
    number, index = int(plain[NUMBER]), int(plain[INDEX])
    if not index < number:
        raise ConfigError(f"{INDEX} = {index}, but {NUMBER} = {number}: processes count from 0")
    if not plain[ADDRESS].rpartition(":")[2].isdecimal():
        raise ConfigError(f"{ADDRESS} = {plain[ADDRESS]!r} must be HOST:PORT of process 0")
    return plain[ADDRESS], number, index


def _jax_finds_others() -> bool:
    """Whether jax can tell by itself which processes there are. It is asked only then: elsewhere asking may fail."""
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ["SLURM_NTASKS"]) > 1
    if "tpu" not in (jax.config.jax_platforms or ""):  # where jax finds TPU chips, it says so here
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if hosts is not None:
        return "," in hosts or int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1
    return "TPU_SKIP_MDS_QUERY" not in os.environ  # a TPU VM: the metadata server knows


class StopSignal:
    """SIGTERM as a question that all processes answer alike: `reached(step)` after every step."""

    def __init__(self):
        self._requested = False
        # Among several processes the signal is jax's: its service lets a process that got one ask all others how far
        # they are, and names a step that none has passed. That goes on in the background, while an all-reduce of a flag
        # would make the host wait for the step under way before it may send off the next one.
        self._alone = not jax.distributed.is_initialized()
        self._before = signal.signal(signal.SIGTERM, self._on_signal) if self._alone else None

    def _on_signal(self, signum, frame):
        self._requested = True

    def reached(self, step: int) -> bool:
        """Whether this is the step to save and stop at. To be asked once a step, by all processes."""
        return self._requested if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def restore(self) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._before)


def gather(name: str, value: Any) -> list[Any] | None:
    """The values of all processes in order, at the first one; None at the others, which do not wait.

    Args:
      name: another one each time.
      value: what JSON can hold.
    """
    if not jax.distributed.is_initialized():
        return [value]
    client, index, folder = runtime.global_state.client, jax.process_index(), f"{TOLD}{name}/"
    if index > 0:
        client.key_value_set(f"{folder}{index}", json.dumps(value))
        return None
    others = [client.blocking_key_value_get(f"{folder}{i}", GATHER * 1000) for i in range(1, jax.process_count())]
    client.key_value_delete(folder)
    return [value] + [json.loads(text) for text in others]


class Exchange:
    """What processes tell each other, turn by turn: `exchange(value)` gives the values of all of them, in order.

    Args:
      name: another one for each exchange.
      group: indices of the processes that wait for each other, this one's among them. Groups may overlap.
    """

    def __init__(self, name: str, group: Sequence[int]):
        self._folder, self._group = f"{TOLD}{name}/", sorted(group)
        self._turn, self._closed = 0, threading.Event()

    def __call__(self, value: Any) -> list[Any]:
        """Waits for the others. ClosedError once `close` was called: they may have ended without this turn."""
        client, index, turn = runtime.global_state.client, jax.process_index(), f"{self._folder}{self._turn}/"
        client.key_value_set(f"{turn}{index}", json.dumps(value))
        told = {}
        while not told.keys() >= set(self._group):
            if self._closed.wait(PAUSE if told else 0):
                raise ClosedError(f"turn {self._turn} of {self._folder} was left")
            told = {_index(key): text for key, text in client.key_value_dir_get(turn)}
        if self._turn:  # who has told something in this turn has read all of the last one
            client.key_value_delete(f"{self._folder}{self._turn - 1}/{index}")
        self._turn += 1
        return [json.loads(told[i]) for i in self._group]

    def close(self) -> None:
        """Ends a turn that another thread waits in."""
        self._closed.set()


class ClosedError(RuntimeError):
    """A turn of an exchange that was closed."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What is done within ends in all processes when an exception ends it in one: none waits for ever in a collective.

    jax's own service sees a process that is gone, not one that has stopped while others compute.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    client, done = runtime.global_state.client, threading.Event()
    watch = threading.Thread(target=_watch, args=(client, done), name="watch", daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        # Registered last, so called first at the end, when the error has been printed: jax would wait for the others.
        atexit.register(_leave, client)
        client.key_value_set(f"{STOPPED}{jax.process_index()}", f"{type(error).__name__}: {error}")
        raise
    finally:
        done.set()
        watch.join()


def _watch(client, done: threading.Event) -> None:
    """Ends this process when another one says that it has stopped."""
    while not done.wait(POLL):
        told = {_index(key) for key, _ in client.key_value_dir_get(STOPPED)}
        if jax.process_index() in told:  # it is about to end by itself
            return
        if told:
            _leave(client)


def _leave(client) -> None:
    """Ends this process, with a word on the others. The first one leaves last, since the others hear through it."""
    index = jax.process_index()
    for key, text in client.key_value_dir_get(STOPPED):
        if _index(key) != index:
            print(f"process {_index(key)} has stopped: {text}", file=sys.stderr)
    if index > 0:
        client.key_value_set(f"{LEFT}{index}", "")
    else:
        wanted, until = set(range(1, jax.process_count())), time.monotonic() + ANSWER
        while wanted and time.monotonic() < until:
            time.sleep(POLL / 5)
            wanted -= {_index(key) for key, _ in client.key_value_dir_get(LEFT)}
        for silent in sorted(wanted):
            print(f"process {silent} does not answer: it was killed, or its host is lost", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _index(key: str) -> int:
    return int(key.rpartition("/")[2])
