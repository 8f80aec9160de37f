"""Several processes that train together, usually one per host: how they find each other, and how they stop.

environment                                                 source of the number of processes and their address
  JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID  the user, who sets all three in every process
  SLURM_NTASKS > 1 in a step of srun                          SLURM, read by jax
  a TPU host of GKE (XPK), or a TPU VM                        TPU_WORKER_HOSTNAMES or the metadata server, read by jax
  anything else                                               none: there is one process, and nothing is started

cause of a stop                 detected by                                     the other processes
  SIGTERM to one process          jax's preemption service, within a second       save the same step, exit status 143
  an error in one process         `fail_together`, within a second                print process and error, exit status 1
  one is killed, its host lost    jax's heartbeats, within HEARTBEAT_TIMEOUT      are aborted with jax's own message
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
import types
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
from jax._src import distributed as runtime  # the key-value store between processes; Orbax uses the same import
from jax.experimental import multihost_utils

from data_pipelines.config import ConfigError

ADDRESS, NUMBER, INDEX = VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# Seconds.
HEARTBEAT_TIMEOUT = 30  # a process without a heartbeat for this long counts as dead
ERROR_POLL = 0.5  # between checks for errors in other processes
EXCHANGE_POLL = 0.05  # between checks for values from other processes
EXIT_TIMEOUT = 10  # after an error, the first process waits this long for the others to exit
GATHER_TIMEOUT = 600  # for a value from another process, which may be reading a slow disk

# Folders of the key-value store.
ERRORS, EXITED, SENT = "molmo2/errors/", "molmo2/exited/", "molmo2/sent/"


class KeyValueStore(Protocol):
    """Strings by path that all processes share: the part of jax's distributed client that is used here."""

    def key_value_set(self, key: str, value: str) -> None: ...
    def key_value_delete(self, key: str) -> None: ...
    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]: ...
    def blocking_key_value_get(self, key: str, timeout_ms: int) -> str: ...


def start() -> None:
    """Starts `jax.distributed` if the environment names several processes. Call it before any device is used.

    Raises:
      ConfigError: one of VARIABLES is missing or malformed.
    """
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if NUMBER in given or INDEX in given or (given and not _jax_finds_processes()):
        address, number, index = _parse_variables(given)
        if number == 1:
            return
        # "deactivate": inside a SLURM job jax would use one device per task.
        where = {"coordinator_address": address, "num_processes": number, "process_id": index}
        jax.distributed.initialize(
            **where, cluster_detection_method="deactivate", heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
        )
    elif _jax_finds_processes():
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT)
    else:
        return
    local = jax.local_devices()
    print(
        f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: "
        f"{len(local)} of {jax.device_count()} devices ({local[0].device_kind})",
        file=sys.stderr,
        flush=True,
    )


def _parse_variables(given: dict[str, str]) -> tuple[str, int, int]:
    """Address, number of processes and index of this one."""
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise ConfigError(f"{', '.join(given)} is set, but not {', '.join(missing)}: several processes need all three")
    for name in (NUMBER, INDEX):
        if not given[name].isdecimal():
            raise ConfigError(f"{name} = {given[name]!r} is not a number")
    number, index = int(given[NUMBER]), int(given[INDEX])
    if not index < number:
        raise ConfigError(f"{INDEX} = {index}, but {NUMBER} = {number}: processes count from 0")
    if not given[ADDRESS].rpartition(":")[2].isdecimal():
        raise ConfigError(f"{ADDRESS} = {given[ADDRESS]!r} must be HOST:PORT of process 0")
    return given[ADDRESS], number, index


def _jax_finds_processes() -> bool:
    """Whether jax can find several processes by itself. Its own detection may fail where it cannot."""
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ["SLURM_NTASKS"]) > 1
    if "tpu" not in (jax.config.jax_platforms or ""):  # jax sets it where it finds TPU chips
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if hosts is not None:
        return "," in hosts or int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1
    return "TPU_SKIP_MDS_QUERY" not in os.environ  # a TPU VM: the metadata server knows


class StopSignal:
    """Decides, alike in all processes, after which step a SIGTERM stops the run: call `reached` after each step."""

    def __init__(self):
        self._requested = False
        # Among several processes jax handles the signal: its service asks all processes how far they are and names a
        # step that none has passed. That happens in the background, while an all-reduce of a flag would make the host
        # wait for the current step before it may dispatch the next one.
        self._single_process = not jax.distributed.is_initialized()
        self._handler_before = signal.signal(signal.SIGTERM, self._on_signal) if self._single_process else None

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        self._requested = True

    def reached(self, step: int) -> bool:
        """Whether this is the step to save and stop at. All processes call it, once per step."""
        return self._requested if self._single_process else multihost_utils.reached_preemption_sync_point(step)

    def __enter__(self) -> "StopSignal":
        return self

    def __exit__(self, *error: object) -> None:
        if self._single_process:
            signal.signal(signal.SIGTERM, self._handler_before)


def gather(name: str, value: Any) -> list[Any] | None:
    """The values of all processes in order, at the first process; None at the others, which do not wait.

    Args:
      name: a new one for each call.
      value: JSON.
    """
    if not jax.distributed.is_initialized():
        return [value]
    store, index, folder = _store(), jax.process_index(), f"{SENT}{name}/"
    if index > 0:
        store.key_value_set(f"{folder}{index}", json.dumps(value))
        return None
    others = [
        store.blocking_key_value_get(f"{folder}{i}", GATHER_TIMEOUT * 1000) for i in range(1, jax.process_count())
    ]
    store.key_value_delete(folder)
    return [value] + [json.loads(text) for text in others]


class Exchange:
    """Values that processes exchange, one round at a time: `exchange(value)` returns those of all, in order.

    Args:
      name: a new one for each exchange.
      group: indices of the processes that wait for each other, including this one. Groups may overlap.
    """

    def __init__(self, name: str, group: Sequence[int]):
        self._folder, self._group = f"{SENT}{name}/", sorted(group)
        self._round, self._closed = 0, threading.Event()

    def __call__(self, value: Any) -> list[Any]:
        """Waits for the others. Raises ClosedError once `close` was called: they may have ended before this round."""
        store, index, folder = _store(), jax.process_index(), f"{self._folder}{self._round}/"
        store.key_value_set(f"{folder}{index}", json.dumps(value))
        received = {}
        while not received.keys() >= set(self._group):
            if self._closed.wait(EXCHANGE_POLL if received else 0):
                raise ClosedError(f"round {self._round} of {self._folder}: the exchange is closed")
            received = {_process_of(key): text for key, text in store.key_value_dir_get(folder)}
        if self._round:  # a process that sent a value in this round has read all values of the last one
            store.key_value_delete(f"{self._folder}{self._round - 1}/{index}")
        self._round += 1
        return [json.loads(received[i]) for i in self._group]

    def close(self) -> None:
        """Ends a round that another thread waits in."""
        self._closed.set()


class ClosedError(RuntimeError):
    """A round of an exchange that was closed."""


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """An exception within the block ends all processes, so that none waits forever in a collective.

    jax's own service detects a process that is gone, not one that has failed while others compute.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    store, done = _store(), threading.Event()
    watch = threading.Thread(target=_exit_on_errors, args=(store, done), name="watch", daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        # Registered last, so called first at exit, after the error was printed: jax would wait for the others.
        atexit.register(_exit, store)
        store.key_value_set(f"{ERRORS}{jax.process_index()}", f"{type(error).__name__}: {error}")
        raise
    finally:
        done.set()
        watch.join()


def _exit_on_errors(store: KeyValueStore, done: threading.Event) -> None:
    """Ends this process when another one reports an error."""
    while not done.wait(ERROR_POLL):
        failed = {_process_of(key) for key, _ in store.key_value_dir_get(ERRORS)}
        if jax.process_index() in failed:  # this process exits by itself
            return
        if failed:
            _exit(store)


def _exit(store: KeyValueStore) -> None:
    """Prints the errors of other processes and ends this one. The first one exits last: the store is in it."""
    index = jax.process_index()
    for key, text in store.key_value_dir_get(ERRORS):
        if _process_of(key) != index:
            print(f"process {_process_of(key)} has stopped: {text}", file=sys.stderr)
    if index > 0:
        store.key_value_set(f"{EXITED}{index}", "")
    else:
        running, until = set(range(1, jax.process_count())), time.monotonic() + EXIT_TIMEOUT
        while running and time.monotonic() < until:
            time.sleep(ERROR_POLL / 5)
            running -= {_process_of(key) for key, _ in store.key_value_dir_get(EXITED)}
        for process in sorted(running):
            print(f"process {process} does not answer: it was killed, or its host is lost", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _store() -> KeyValueStore:
    return runtime.global_state.client


def _process_of(key: str) -> int:
    """The process that set a key: its last part."""
    return int(key.rpartition("/")[2])
