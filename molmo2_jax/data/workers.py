"""Worker processes that decode media straight into memory which jax can read, an example at a time.

    buffer = CropBuffer((2, 3, 729, 588))                      2 rows of 3 crops, black
    ticket = pool.submit(buffer, [Job(range(0, 2), (video,)),  an example of 2 frames at the start of row 0
                                  Job((3, -1, 5), (image,))])  in row 1: an overview, a crop for another host, a crop
    ticket.result()                                            [None, Failure("a.jpg: cut off ...", "cut_off")]
    buffer.array                                               uint8[2, 3, 729, 588]; row 1 is black

A worker is a new Python process with a socket to it, and a thread here that hands it the next job. It imports neither
the main script nor jax. What has no name cannot be left behind: the memory is an anonymous file whose descriptor goes
over the socket with each job, and a worker whose socket closes, because the pool or this process ended, ends as well.
"""

import contextlib
import functools
import itertools
import mmap
import os
import pickle
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import NamedTuple, Protocol

import numpy as np

from molmo2_jax.data.failure import ExampleError, MediaError
from molmo2_jax.data.schema import PATCH_PIXELS, PATCHES

CROP_BYTES = PATCHES * PATCH_PIXELS
_BLACK = bytes(CROP_BYTES)
_TAKEN = b"taken"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # numpy would start one a core in every worker, and none has work


class Plan(Protocol):
    """What a worker needs of a medium: `location` names it in errors, `views` gives uint8[729, 588] each. Picklable."""

    location: object

    def views(self) -> Iterator[np.ndarray]: ...


class Job(NamedTuple):
    """The media of one example. `slots[k]` is where its k-th view goes, an index into all crops of the buffer in order,
    or -1 for a view that is not wanted here.
    """

    slots: Sequence[int]
    plans: Sequence[Plan]


class Failure(NamedTuple):
    """Why an example's media could not be decoded; `reason` is of failure.REASONS."""

    message: str
    reason: str


class PoolClosedError(RuntimeError):
    """The pool was closed before the job was done."""

    def __init__(self):
        super().__init__("the decode pool was closed before this job was done")


class CropBuffer:
    """Zeroed memory for crops that worker processes write into: `array`, uint8[*shape], shape [..., 729, 588].

    The memory lives as long as `array` or a view of it, also one that jax made, and is never used again. Workers can
    reach it as long as the CropBuffer lives, which the pool sees to.
    """

    def __init__(self, shape: tuple[int, ...]):
        if tuple(shape[-2:]) != (PATCHES, PATCH_PIXELS):
            raise ValueError(f"crops are {PATCHES} x {PATCH_PIXELS} bytes; a buffer of shape {shape} holds none")
        size = int(np.prod(shape))
        self.n_crops = size // CROP_BYTES
        self.fd = os.memfd_create("crops")
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, max(size, 1))  # no mapping is empty
        self.array = np.ndarray(shape, np.uint8, buffer=mmap.mmap(self.fd, max(size, 1)))


class Ticket:
    """Jobs that were submitted together. Keeps their buffer within reach until they are done."""

    def __init__(self, calls: Sequence[Callable[[], Failure | None]], buffer: CropBuffer):
        self._calls, self._buffer = calls, buffer
        self._results: list[Failure | None] = []

    def result(self) -> list[Failure | None]:
        """What became of each job, in order, when all are done; the slots of a job that failed are black.

        Raises PoolClosedError when the pool was closed before, RuntimeError with a worker's traceback for an error that
        is not the media's.
        """
        if self._calls:
            self._results = [call() for call in self._calls]
            self._calls, self._buffer = [], None
        return self._results


class DecodePool:
    """`workers` processes that take jobs in the order they were submitted; close() it when done.

    With 0 workers, a ticket's jobs are done by whoever asks for its result. A process starts with its first job. One
    that dies costs the job it held (reason "decoder_died"), and another takes its place.
    """

    def __init__(self, workers: int):
        if workers < 0:
            raise ValueError(f"a pool of {workers} workers")
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._tasks) for _ in range(workers)]
        self._lock = threading.Lock()  # nothing is submitted behind the end of the queue
        self._closed = False
        for worker in self._workers:
            worker.start()

    def submit(self, buffer: CropBuffer, jobs: Sequence[Job]) -> Ticket:
        """Queue jobs for black crops of `buffer`. Raises ValueError when a slot is not one of the buffer's."""
        for job in jobs:
            if not all(-1 <= slot < buffer.n_crops for slot in job.slots):
                raise ValueError(f"slots {list(job.slots)} in a buffer of {buffer.n_crops} crops")
        tasks = [_Task(buffer, job, pickle.dumps(job), Future()) for job in jobs]
        with self._lock:
            if self._closed:
                raise PoolClosedError
            if not self._workers:
                return Ticket([functools.partial(_decode, buffer.fd, job) for job in jobs], buffer)
            for task in tasks:
                self._tasks.put(task)
        return Ticket([task.future.result for task in tasks], buffer)

    def close(self) -> None:
        """End all workers, also amid a job, and wait until they are gone. What is not done raises PoolClosedError."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.stop()
                self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Task(NamedTuple):
    buffer: CropBuffer
    job: Job
    pickled: bytes  # of the job; made where it is submitted, so that an error is raised there
    future: Future[Failure | None]


class _Worker(threading.Thread):
    """A thread that hands tasks to a process, and to a new one when that has died."""

    def __init__(self, tasks: "queue.SimpleQueue[_Task | None]"):
        # A daemon: a program that ends with an error, its pool still open, does not wait for its decoders.
        super().__init__(name="decode", daemon=True)
        self._tasks = tasks
        self._lock = threading.Lock()  # no process starts after stop()
        self._stopped = False
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def run(self) -> None:
        # A process inherits the signals that are blocked where it is started. Ctrl-C and a preemption notice reach the
        # whole process group; this process decides what is to be done about them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while (task := self._tasks.get()) is not None:
            try:
                task.future.set_result(self._do(task))
            except (OSError, RuntimeError) as error:
                task.future.set_exception(PoolClosedError() if self._stopped else error)
            del task  # its buffer must not live until the next one comes
        self._end()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _do(self, task: _Task) -> Failure | None:
        if not self._hand_over(task):  # no process yet, or it died idle, for which the next job is not to blame
            self._start()
            if not self._hand_over(task):
                raise RuntimeError(f"a decode worker does not start ({self._end()}); what it said is above")
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionError):
            status = self._end()
            if self._stopped:  # killed by us
                raise PoolClosedError from None
            _blacken(task.buffer.fd, task.job.slots)
            return Failure(f"{_names(task.job)}: the process that decoded it died ({status})", "decoder_died")
        if isinstance(reply, str):
            self._end()
            raise RuntimeError(f"a decode worker failed:\n{reply}")
        return reply

    def _hand_over(self, task: _Task) -> bool:
        """Whether there is a process that has taken the task."""
        if self._process is None:
            return False
        try:
            self._connection.send_bytes(task.pickled)
            send_handle(self._connection, task.buffer.fd, self._process.pid)
            return self._connection.recv_bytes() == _TAKEN
        except (EOFError, ConnectionError):
            return False

    def _start(self) -> None:
        self._end()
        ours, theirs = socket.socketpair()
        with ours, theirs, self._lock:
            if self._stopped:
                raise PoolClosedError
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **_ONE_THREAD},
            )
            self._connection = Connection(ours.detach())

    def _end(self) -> str | None:
        """End the process, if there is one, and say how it went: "SIGSEGV", "exit status 1"."""
        if self._process is None:
            return None
        self._connection.close()
        self._process.kill()
        status = self._process.wait()
        with self._lock:
            self._process = None
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def serve(fd: int) -> None:
    """A worker's life: do the jobs that come over the socket `fd` until it closes."""
    connection = Connection(fd)
    threading.Thread(target=_exit_when_closed, args=(fd,), daemon=True).start()

    def report(*error) -> None:
        with contextlib.suppress(OSError):  # nobody is there to tell
            connection.send("".join(traceback.format_exception(*error)))

    sys.excepthook = report
    while True:
        pickled, crops = connection.recv_bytes(), recv_handle(connection)
        connection.send_bytes(_TAKEN)
        connection.send(_decode(crops, pickle.loads(pickled)))
        os.close(crops)


def _exit_when_closed(fd: int) -> None:
    """End this process, amid a decode if need be, when the other end of the socket is closed."""
    hang_up = select.poll()
    hang_up.register(fd, 0)  # that it was closed is always reported
    hang_up.poll()
    os._exit(0)


def _decode(fd: int, job: Job) -> Failure | None:
    """Write the crops of a job into the file behind a CropBuffer, all of them or none."""
    done = 0
    try:
        for view in itertools.chain.from_iterable(plan.views() for plan in job.plans):
            if done == len(job.slots):
                raise MediaError(f"{_names(job)}: more views decoded than the {done} that were planned")
            if job.slots[done] >= 0:
                _write(fd, job.slots[done], view)
            done += 1
        if done < len(job.slots):
            raise MediaError(f"{_names(job)}: {done} views decoded where {len(job.slots)} were planned")
    except ExampleError as error:
        _blacken(fd, job.slots)  # the row must not depend on where the error struck
        return Failure(str(error), error.reason)
    return None


def _blacken(fd: int, slots: Sequence[int]) -> None:
    for slot in slots:
        if slot >= 0:
            _write(fd, slot, _BLACK)


def _write(fd: int, slot: int, crop: np.ndarray | bytes) -> None:
    # Half the time of copying into a mapping: the system makes the pages without a fault for each.
    if os.pwrite(fd, crop, slot * CROP_BYTES) != CROP_BYTES:
        raise OSError(f"a crop of {memoryview(crop).nbytes} bytes could not be written as one of {CROP_BYTES}")


def _names(job: Job) -> str:
    return ", ".join(str(plan.location) for plan in job.plans)
