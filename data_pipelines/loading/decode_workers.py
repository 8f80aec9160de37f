"""Worker processes that decode media straight into memory that jax can read, one example per job.

    buffer = CropBuffer((2, 3, 729, 588))                      2 rows of 3 black crops
    ticket = pool.submit(buffer, [Job(range(0, 2), (video,)),  an example of 2 frames, in slots 0 and 1 of row 0
                                  Job((3, 5), (image,))])    an image of 2 crops, in slots 0 and 2 of row 1
    ticket.result()                                            [None, Failure("a.jpg: cut off ...", "cut_off")]
    buffer.array                                               uint8[2, 3, 729, 588]; row 1 is black

A worker is a new Python process, a socket to it, and a thread in this process that sends it the next job. It imports
neither the main script nor jax. Nothing can be left behind: the memory is an anonymous file, whose descriptor is sent
over the socket with each job, and a worker exits when its socket closes because the pool or this process ended.
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

from data_pipelines.errors import ExampleError, MediaError
from data_pipelines.media.crops import PATCH_PIXELS, PATCHES

CROP_BYTES = PATCHES * PATCH_PIXELS
_BLACK = bytes(CROP_BYTES)
_RECEIVED = b"received"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # else numpy starts an idle thread per core in every worker


class Plan(Protocol):
    """What a worker needs of a medium: `location` names it in errors, `crops` yields uint8[729, 588]. Picklable."""

    location: object

    def crops(self) -> Iterator[np.ndarray]: ...


class Job(NamedTuple):
    """The media of one example. `slots[k]` is the slot of its k-th crop: an index into all crops of the buffer."""

    slots: Sequence[int]
    plans: Sequence[Plan]


class Failure(NamedTuple):
    """Why an example's media could not be decoded; `reason` is a key of errors.REASONS."""

    message: str
    reason: str


class PoolClosedError(RuntimeError):
    """The pool was closed before the job was done."""

    def __init__(self):
        super().__init__("the decode pool was closed before this job was done")


class CropBuffer:
    """Zeroed memory for crops that worker processes write to: `array`, uint8[*shape], shape [..., 729, 588].

    The memory lives as long as `array` or a view of it, including one that jax made, and is never reused. Workers can
    access it as long as the CropBuffer lives; the pool keeps it alive until its jobs are done.
    """

    def __init__(self, shape: tuple[int, ...]):
        if tuple(shape[-2:]) != (PATCHES, PATCH_PIXELS):
            raise ValueError(f"crops are {PATCHES} x {PATCH_PIXELS} bytes; a buffer of shape {shape} cannot hold crops")
        size = int(np.prod(shape))
        self.n_crops = size // CROP_BYTES
        self.fd = os.memfd_create("crops")
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, max(size, 1))  # a mapping may not be empty
        self.array = np.ndarray(shape, np.uint8, buffer=mmap.mmap(self.fd, max(size, 1)))


class Ticket:
    """Jobs that were submitted together. Keeps their buffer alive until they are done."""

    def __init__(self, calls: Sequence[Callable[[], Failure | None]], buffer: CropBuffer):
        self._calls, self._buffer = calls, buffer
        self._results: list[Failure | None] = []

    def result(self) -> list[Failure | None]:
        """Waits for all jobs; the failure of each, in order, or None. The slots of a failed job are black.

        Raises:
          PoolClosedError: the pool was closed before.
          RuntimeError: an error that is not the media's, with the worker's traceback.
        """
        if self._calls:
            self._results = [call() for call in self._calls]
            self._calls, self._buffer = [], None
        return self._results


class DecodePool:
    """`workers` processes that take jobs in the order of submission; close the pool when done.

    With 0 workers, `Ticket.result` does the jobs. A process starts with its first job. If a process dies, its job fails
    (reason "decoder_died") and a new process replaces it.
    """

    def __init__(self, workers: int):
        if workers < 0:
            raise ValueError(f"a pool cannot have {workers} workers")
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._tasks) for _ in range(workers)]
        self._lock = threading.Lock()  # nothing may be submitted after the end of the queue
        self._closed = False
        for worker in self._workers:
            worker.start()

    def submit(self, buffer: CropBuffer, jobs: Sequence[Job]) -> Ticket:
        """Queue jobs for black crops of `buffer`. Raises ValueError for a slot that the buffer does not have."""
        for job in jobs:
            if not all(0 <= slot < buffer.n_crops for slot in job.slots):
                raise ValueError(f"slots {list(job.slots)} are not all in a buffer of {buffer.n_crops} crops")
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
        """Kill all workers, even during a job, and wait for their exit. Unfinished jobs raise PoolClosedError."""
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
    pickled: bytes  # the job; pickled on submission, so that errors are raised there
    future: Future[Failure | None]


class _Worker(threading.Thread):
    """A thread that sends tasks to a process, which it replaces if it dies."""

    def __init__(self, tasks: "queue.SimpleQueue[_Task | None]"):
        # A daemon: a program that ends with an error while its pool is open does not wait for its decoders.
        super().__init__(name="decode", daemon=True)
        self._tasks = tasks
        self._lock = threading.Lock()  # no process starts after stop()
        self._stopped = False
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def run(self) -> None:
        # A process inherits the blocked signals of the thread that starts it. Ctrl-C and preemption notices reach the
        # whole process group; only the main process handles them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while (task := self._tasks.get()) is not None:
            try:
                task.future.set_result(self._run_task(task))
            except (OSError, RuntimeError) as error:
                task.future.set_exception(PoolClosedError() if self._stopped else error)
            del task  # frees its buffer before the next task comes
        self._end_process()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _run_task(self, task: _Task) -> Failure | None:
        if not self._send(task):  # no process yet, or it died while idle, which is not the fault of this job
            self._start_process()
            if not self._send(task):
                raise RuntimeError(f"a decode worker does not start ({self._end_process()}); see its output above")
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionError):
            status = self._end_process()
            if self._stopped:  # killed by stop()
                raise PoolClosedError from None
            _write_black(task.buffer.fd, task.job.slots)
            return Failure(f"{_media_names(task.job)}: the process that decoded it died ({status})", "decoder_died")
        if isinstance(reply, str):
            self._end_process()
            raise RuntimeError(f"a decode worker failed:\n{reply}")
        return reply

    def _send(self, task: _Task) -> bool:
        """Whether a process has received the task."""
        if self._process is None:
            return False
        try:
            self._connection.send_bytes(task.pickled)
            send_handle(self._connection, task.buffer.fd, self._process.pid)
            return self._connection.recv_bytes() == _RECEIVED
        except (EOFError, ConnectionError):
            return False

    def _start_process(self) -> None:
        self._end_process()
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

    def _end_process(self) -> str | None:
        """Kill the process, if there is one; its exit status: "SIGSEGV", "exit status 1"."""
        if self._process is None:
            return None
        self._connection.close()
        self._process.kill()
        status = self._process.wait()
        with self._lock:
            self._process = None
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def serve(fd: int) -> None:
    """The main loop of a worker: does the jobs from the socket `fd` until it closes."""
    connection = Connection(fd)
    threading.Thread(target=_exit_when_closed, args=(fd,), daemon=True).start()

    def report(*error) -> None:
        with contextlib.suppress(OSError):  # the pool is gone
            connection.send("".join(traceback.format_exception(*error)))

    sys.excepthook = report
    while True:
        pickled, crops = connection.recv_bytes(), recv_handle(connection)
        connection.send_bytes(_RECEIVED)
        connection.send(_decode(crops, pickle.loads(pickled)))
        os.close(crops)


def _exit_when_closed(fd: int) -> None:
    """End this process, even during a job, when the other end of the socket closes."""
    hang_up = select.poll()
    hang_up.register(fd, 0)  # poll always reports a hang-up
    hang_up.poll()
    os._exit(0)


def _decode(fd: int, job: Job) -> Failure | None:
    """Write the crops of a job to the file of a CropBuffer, all of them or none."""
    done = 0
    try:
        for crop in itertools.chain.from_iterable(plan.crops() for plan in job.plans):
            if done == len(job.slots):
                raise MediaError(f"{_media_names(job)}: more crops decoded than the {done} planned")
            _write(fd, job.slots[done], crop)
            done += 1
        if done < len(job.slots):
            raise MediaError(f"{_media_names(job)}: {done} crops decoded, {len(job.slots)} planned")
    except ExampleError as error:
        _write_black(fd, job.slots)  # the row must not depend on where decoding failed
        return Failure(str(error), error.reason)
    return None


def _write_black(fd: int, slots: Sequence[int]) -> None:
    for slot in slots:
        _write(fd, slot, _BLACK)


def _write(fd: int, slot: int, crop: np.ndarray | bytes) -> None:
    # Takes half the time of copying into a mapping: the kernel allocates the pages without a fault for each.
    if os.pwrite(fd, crop, slot * CROP_BYTES) != CROP_BYTES:
        raise OSError(f"a crop of {memoryview(crop).nbytes} bytes could not be written as one of {CROP_BYTES}")


def _media_names(job: Job) -> str:
    return ", ".join(str(plan.location) for plan in job.plans)
