import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.loading.decode_workers import CropBuffer, DecodePool, Failure, Job, PoolClosedError
from data_pipelines.media.crops import PATCH_PIXELS, PATCHES
from data_pipelines.media.decode_plan import VideoPlan
from data_pipelines.media.location import Location
from tests.data_pipelines.loading.plans import Broken, Bug, Confess, Deadly, Gray, Slow

TIMEOUT = 20  # seconds; what a test waits for takes a fraction of one


@pytest.fixture(scope="module")
def shared_pool():
    """One pool of two processes for the tests that do not close it."""
    with DecodePool(2) as pool:
        yield pool


@pytest.fixture(params=[0, 2])
def pool(request, shared_pool):
    """Decoding in this process, and in two others."""
    return shared_pool if request.param else DecodePool(0)


def buffer(*leading):
    return CropBuffer((*leading, PATCHES, PATCH_PIXELS))


def values(crops):
    """The gray of each crop; every pixel must have it."""
    flat = crops.reshape(-1, PATCHES * PATCH_PIXELS)
    assert (flat == flat[:, :1]).all()
    return flat[:, 0].tolist()


def decode(pool, plans, n_crops=4, slots=None):
    crops = buffer(n_crops)
    ticket = pool.submit(crops, [Job(range(n_crops) if slots is None else slots, plans)])
    return ticket.result()[0], values(crops.array)


def wait_for(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come true"
        time.sleep(0.01)


def gone(pid):
    """Whether a process has ended; it may be a zombie that no process waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children():
    """Ids of the child processes, including zombies."""
    return {int(pid) for tid in os.listdir("/proc/self/task") for pid in _read(f"/proc/self/task/{tid}/children")}


def _read(path):
    try:
        return Path(path).read_text().split()
    except FileNotFoundError:  # a thread that has just ended
        return []


def test_crops_go_to_the_slots_of_the_job(pool):
    crops = buffer(2, 3)
    first = Job(range(0, 3), (Gray((1, 2)), Gray((3,))))
    second = Job((5, 3), (Gray((4, 6)),))
    assert pool.submit(crops, [first, second]).result() == [None, None]
    assert values(crops.array) == [1, 2, 3, 6, 0, 4]
    assert pool.submit(crops, []).result() == []


def test_media_that_cannot_be_decoded_leave_black_crops_and_a_reason(pool):
    failure, crops = decode(pool, (Gray((7,)), Broken((8, 9), "b.mp4")))
    assert failure == Failure("b.mp4: cut off", "cut_off")
    assert crops == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("n", "message"), [(3, "3 crops decoded, 4 planned"), (5, "more crops decoded than the 4 planned")]
)
def test_another_number_of_crops_than_planned_is_a_failure(pool, n, message):
    failure, crops = decode(pool, (Gray((9,) * n, "n.gif"),))
    assert message in failure.message
    assert failure.message.startswith("n.gif: ")
    assert failure.reason == "undecodable"
    assert crops == [0, 0, 0, 0]


def test_a_failure_touches_no_crops_but_its_own(pool):
    crops = buffer(5)
    jobs = [Job((0,), (Gray((1,)),)), Job((1, 2), (Broken((2, 2)),)), Job((3, 4), (Gray((3, 4)),))]
    assert [f and f.reason for f in pool.submit(crops, jobs).result()] == [None, "cut_off", None]
    assert values(crops.array) == [1, 0, 0, 3, 4]


def test_an_error_that_is_not_the_media_s_is_raised_with_its_traceback_and_the_pool_goes_on(shared_pool):
    for _ in range(3):
        with pytest.raises(RuntimeError, match=r"(?s)plans.py.*KeyError: 'no such key'"):
            decode(shared_pool, (Bug(()),))
    with pytest.raises(KeyError):
        decode(DecodePool(0), (Bug(()),))
    assert decode(shared_pool, (Gray((1, 2, 3, 4)),)) == (None, [1, 2, 3, 4])


def test_a_real_video_is_the_same_byte_for_byte_wherever_it_is_decoded(shared_pool, street_video):
    plans = [VideoPlan(Location.of(street_video), (start, start + 0.5)) for start in (0.0, 3.04, 9.0)]
    results = []
    for pool in (DecodePool(0), shared_pool):
        crops = buffer(6)
        assert pool.submit(crops, [Job((2 * i, 2 * i + 1), (p,)) for i, p in enumerate(plans)]).result() == [None] * 3
        results.append(crops.array)
    np.testing.assert_array_equal(*results)
    assert len({crop.tobytes() for crop in results[0]}) == 6


@pytest.mark.parametrize("slots", [(4,), (-2,), (0, 1, 99)])
def test_a_slot_outside_the_buffer_is_refused_at_once(shared_pool, slots):
    with pytest.raises(ValueError, match="are not all in a buffer of 4 crops"):
        shared_pool.submit(buffer(4), [Job(slots, ())])


def test_a_buffer_holds_whole_crops_or_none_at_all():
    assert buffer(2, 0).array.shape == (2, 0, PATCHES, PATCH_PIXELS)
    with pytest.raises(ValueError, match="cannot hold crops"):
        CropBuffer((2, 3))
    with pytest.raises(ValueError, match="-1 workers"):
        DecodePool(-1)


def test_jax_reads_the_crops_where_they_are_and_they_outlive_the_buffer(shared_pool):
    crops = buffer(4)
    assert shared_pool.submit(crops, [Job(range(4), (Gray((1, 2, 3, 4)),))]).result() == [None]
    on_device = jax.device_put(crops.array, jax.devices()[0], may_alias=True)
    assert on_device.unsafe_buffer_pointer() == crops.array.ctypes.data
    del crops
    gc.collect()
    assert decode(shared_pool, (Gray((9, 9, 9, 9)),))[1] == [9] * 4
    assert values(np.asarray(on_device)) == [1, 2, 3, 4]


def test_a_worker_imports_neither_jax_nor_grain_nor_the_program(shared_pool, street_video):
    plans = (VideoPlan(Location.of(street_video), (0.0,)), Confess(()))
    failure, _ = decode(shared_pool, plans)
    _, blocked, modules = failure.message.split("; ")
    assert "'data_pipelines.loading.decode_workers'" in modules
    assert "'av'" in modules
    assert not [m for m in ("jax", "grain", "tensorflow", "torch", "pytest") if f"'{m}'" in modules]
    assert blocked == "['SIGINT', 'SIGTERM']"


def test_a_decoder_that_dies_costs_its_job_and_is_replaced():
    with DecodePool(1) as pool:
        for kind in (signal.SIGSEGV, signal.SIGKILL):
            failure, crops = decode(pool, (Gray((5,)), Deadly((6, 7), "evil.mp4", kind)))
            assert failure.message == f"gray.png, evil.mp4: the process that decoded it died ({kind.name})"
            assert failure.reason == "decoder_died"
            assert crops == [0, 0, 0, 0]
            assert decode(pool, (Gray((1, 2, 3, 4)),)) == (None, [1, 2, 3, 4])
        pid = int(decode(pool, (Confess(()),))[0].message.split(";")[0])
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: gone(pid))
        assert decode(pool, (Gray((1, 2, 3, 4)),)) == (None, [1, 2, 3, 4]), "a worker that dies while idle costs no job"


def test_a_long_job_delays_no_other(shared_pool, tmp_path):
    long = shared_pool.submit(buffer(1), [Job((0,), (Slow((1,), str(tmp_path / "begun"), 1.5),))])
    wait_for((tmp_path / "begun").exists)
    start = time.monotonic()
    crops = buffer(20)
    assert shared_pool.submit(crops, [Job((i,), (Gray((i,)),)) for i in range(20)]).result() == [None] * 20
    assert values(crops.array) == list(range(20))
    assert time.monotonic() - start < 1, "they waited for the long job"
    assert long.result() == long.result() == [None]


def test_close_ends_workers_during_a_job_and_raises_where_results_are_awaited(tmp_path):
    before = children()
    pool = DecodePool(2)
    jobs = [Job((0,), (Slow((1,), str(tmp_path / f"begun{i}")),)) for i in range(4)]
    tickets = [pool.submit(buffer(1), [job]) for job in jobs]
    raised = []

    def wait():
        for ticket in tickets:
            with pytest.raises(PoolClosedError, match="closed before"):
                ticket.result()
            raised.append(ticket)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_for(lambda: len(list(tmp_path.glob("begun?"))) == 2)
    start = time.monotonic()
    threads = [waiter, *(threading.Thread(target=pool.close) for _ in range(2))]
    for thread in threads[1:]:
        thread.start()
    pool.close()
    for thread in threads:
        thread.join(TIMEOUT)
    assert time.monotonic() - start < TIMEOUT / 2
    assert raised == tickets
    assert children() == before
    assert len(list(tmp_path.iterdir())) == 2, "jobs that had not begun do not begin"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_pool_takes_no_jobs(workers):
    with DecodePool(workers) as pool:
        pass
    with pytest.raises(PoolClosedError):
        pool.submit(buffer(1), [])


def test_a_worker_that_cannot_start_is_an_error_not_a_failure_of_media(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodePool(1) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"does not start \(exit status 1\)"):
                decode(pool, (Gray((1, 2, 3, 4)),))
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(FileNotFoundError):
            decode(pool, (Gray((1, 2, 3, 4)),))
        monkeypatch.undo()
        assert decode(pool, (Gray((1, 2, 3, 4)),)) == (None, [1, 2, 3, 4])


PROGRAM = """
import os, signal, sys, time
from data_pipelines.loading.decode_workers import CropBuffer, DecodePool, Job
from tests.data_pipelines.loading.plans import Slow

folder, then = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: print("terminated", flush=True))
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
pool = DecodePool(2)
crops = CropBuffer((2, 729, 588))
ticket = pool.submit(crops, [Job((i,), (Slow((i,), f"{folder}/{i}", float(then == "wait") or 60),)) for i in range(2)])
if then == "wait":
    print(ticket.result(), crops.array.mean((1, 2)))
while then == "sleep":
    time.sleep(1)
while not all(os.path.exists(f"{folder}/{i}") for i in range(2)):
    time.sleep(0.01)
"""


@pytest.fixture
def program(tmp_path):
    """Start a program with a pool of two and a job in each; (process, pids of its workers) once they have begun."""
    started = []

    def start(then):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), then], stdout=subprocess.PIPE, text=True, process_group=0
        )
        started.append(process)
        files = [tmp_path / str(i) for i in range(2)]
        wait_for(lambda: all(file.exists() and file.read_text() for file in files) or process.poll() is not None)
        return process, [int(file.read_text()) for file in files]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_workers_end_with_a_program_that_is_killed(program):
    process, workers = program("sleep")
    assert not any(gone(pid) for pid in workers)
    process.kill()
    wait_for(lambda: all(gone(pid) for pid in workers))


def test_only_the_program_handles_ctrl_c_and_sigterm_of_its_process_group(program):
    process, workers = program("wait")
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=TIMEOUT)
    assert "interrupted" in out
    assert "terminated" in out
    assert "[None, None] [0. 1.]" in out
    wait_for(lambda: all(gone(pid) for pid in workers))


def test_a_program_that_ends_without_closing_its_pool_does_not_wait_for_it(program):
    process, workers = program("end")
    assert process.wait(TIMEOUT) == 0
    wait_for(lambda: all(gone(pid) for pid in workers))


def resident():
    """Bytes of this process and of its children."""
    pages = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in ("self", *children())]
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_tickets_leave_no_file_process_or_memory_behind(shared_pool):
    plans = (Gray((1, 2, 3)), Broken((1,)))

    def spend(n):
        for _ in range(n // 4):
            crops = [buffer(4) for _ in range(4)]
            for ticket in [shared_pool.submit(c, [Job(range(4), plans[i % 2 :])]) for i, c in enumerate(crops)]:
                assert len(ticket.result()) == 1
            del crops, ticket
        gc.collect()
        return len(os.listdir("/proc/self/fd")), children(), resident()

    files, processes, memory = spend(200)
    later = spend(1000)
    assert later[:2] == (files, processes)
    assert later[2] < memory + 4 * 2**20
