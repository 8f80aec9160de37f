"""Training in several real processes over loopback: the same losses, one process killed, one stopped by SIGTERM.

The tests share one run. Four processes, each with a quarter of every row of 512 tokens, train 20 steps and save; one is
killed while the others wait for it. Two processes, with a row each, continue the run; one of them gets SIGTERM. The run
is compared with the same run in this process, on one device and on eight simulated ones.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.config import ConfigError
from molmo2_jax import sharding
from molmo2_jax.train import distributed
from tests.molmo2_jax.train import process_run
from tests.molmo2_jax.train.process_run import SAVED
from tests.molmo2_jax.train.small_run import use_devices
from tests.xla_flags import FEW_OPTIMISATIONS

ROOT = Path(__file__).parents[3]
STEPS = SAVED + 2  # of the runs in one process
MINUTE = 60  # seconds
TIMEOUT = 600  # seconds, where the time is not under test


class Group:
    """Processes that train together, their logs and their exit statuses."""

    def __init__(self, folder: Path, arguments: list[list[str]], **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._logs = [folder / f"{time.monotonic_ns()}-{i}.log" for i in range(len(arguments))]
        self.processes = []
        for i, (log, argv) in enumerate(zip(self._logs, arguments, strict=True)):
            where = dict(zip(distributed.VARIABLES, (address, str(len(arguments)), str(i)), strict=True))
            env = os.environ | {"XLA_FLAGS": FEW_OPTIMISATIONS} | where | environment
            with log.open("w") as out:
                self.processes.append(
                    subprocess.Popen([sys.executable, *argv], cwd=ROOT, env=env, stdout=out, stderr=out)
                )

    def log(self, i: int) -> str:
        return self._logs[i].read_text()

    def until(self, holds) -> None:
        """Waits until `holds()`; fails when a process ends before."""
        end = time.monotonic() + TIMEOUT
        while not holds():
            ended = [i for i, process in enumerate(self.processes) if process.poll() is not None]
            assert not ended, self.log(ended[0])
            assert time.monotonic() < end, self.log(0)
            time.sleep(0.05)

    def statuses(self, seconds: float) -> list[int]:
        """Exit statuses, within `seconds`."""
        end = time.monotonic() + seconds
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def trainers(workdir, mesh, plans):
    argv = [["-m", "tests.molmo2_jax.train.process_run", str(workdir), json.dumps(mesh), *plan] for plan in plans]
    return Group(workdir.parent, argv)


def lines(workdir) -> dict[int, dict]:
    """The complete lines of metrics, by step."""
    path = workdir / "metrics.jsonl"
    complete = path.read_text().split("\n")[:-1] if path.exists() else []
    return {line["step"]: line for line in map(json.loads, complete)}


def digests(workdir, processes) -> dict[tuple[int, int], set[str]]:
    """{(step, row): the digests of what each of `processes` processes with this row put on its devices}."""
    found = {}
    for path in workdir.glob(f"rows-*-of-{processes}.jsonl"):
        for step, row, digest in map(json.loads, path.read_text().splitlines()):
            found.setdefault((step, row), set()).add(digest)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    process_run.write_records(folder / "records")
    return folder


@pytest.fixture(scope="module")
def four(base):
    """Four processes; the last one waits forever after a step and is killed. Yields them and their exit statuses."""
    run = base / "run"
    group = trainers(run, {"context": 4}, [[], [], [], [f"hang:{SAVED + 2}"]])
    try:
        group.until(lambda: (run / "checkpoints" / str(SAVED)).is_dir() and SAVED in lines(run))
        group.until(lambda: (SAVED + 2, 1) in digests(run, 4))  # the others have begun the step, and wait
        group.processes[3].kill()
        yield group, group.statuses(MINUTE)
    finally:
        group.kill()


@pytest.fixture(scope="module")
def two(four, base):
    """Two processes that continue the run; the second one gets SIGTERM. Yields them and their exit statuses."""
    run = base / "run"
    group = trainers(run, {"data": 2}, [["slow"], ["slow"]])
    try:
        group.until(lambda: SAVED + 2 in lines(run))
        group.processes[1].send_signal(signal.SIGTERM)
        yield group, group.statuses(TIMEOUT)
    finally:
        group.kill()


@pytest.fixture(scope="module")
def alone(base):
    """{number of devices: the metrics of the run in this process}. SIGTERM ends the runs."""
    put_rows, found = sharding.put_rows, {}
    for devices, mesh in ((8, {"data": 2, "context": 4}), (1, {})):
        steps = iter(range(1, STEPS))

        def last(rows, mesh, steps=steps):
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGTERM)
            return put_rows(rows, mesh)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "put_rows", last)
            use_devices(patch, devices)
            assert process_run.train(base / f"on_{devices}", mesh) == 143
        found[devices] = lines(base / f"on_{devices}")
        assert len(found[devices]) == STEPS
    return found


@pytest.mark.slow
def test_four_processes_eight_devices_and_one_device_have_the_same_losses(four, alone, base):
    run, (eight, one) = lines(base / "run"), (alone[8], alone[1])
    assert sum(one[step]["loss"] for step in range(16, 21)) < sum(one[step]["loss"] for step in range(1, 6)) - 1
    for step in range(1, SAVED + 1):
        got = [run[step]["loss"], eight[step]["loss"]]
        np.testing.assert_allclose(got, one[step]["loss"], rtol=1e-5, err_msg=f"step {step}")


@pytest.mark.slow
def test_when_one_of_four_is_killed_the_others_stop_and_print_it(four):
    group, statuses = four
    # The collective fails at once. A process that saves waits for the save, until jax misses the dead one's heartbeats.
    assert statuses[3] == -signal.SIGKILL and set(statuses[:3]) <= {1, -signal.SIGABRT}
    heartbeats = re.escape("The following tasks are unhealthy (stopped sending heartbeats):\n3\n")
    assert re.search(f"process 3 does not answer: it was killed, or its host is lost\n|{heartbeats}", group.log(0))
    for i in range(4):
        assert f"process {i} of 4 on {socket.gethostname()}: 1 of 4 devices (cpu)\n" in group.log(i)


@pytest.mark.slow
def test_two_processes_continue_with_the_rows_that_four_had(two, base):
    group, _ = two
    assert f"continuing from step {SAVED}\n" in group.log(0)
    before, after = digests(base / "run", 4), digests(base / "run", 2)
    assert min(after) == (SAVED + 1, 0) and max(before) == (SAVED + 2, 1)
    for at in [(step, row) for step in (SAVED + 1, SAVED + 2) for row in (0, 1)]:
        assert len(before[at]) == 1 and before[at] == after[at]


@pytest.mark.slow
def test_sigterm_to_one_of_two_saves_the_same_step_in_both(two, base):
    group, statuses = two
    assert statuses == [143, 143], group.log(1)
    step, again = (
        re.search(r"SIGTERM: stopped with a checkpoint of step (\d+)", group.log(i)).group(1) for i in (0, 1)
    )
    assert step == again and int(step) == max(lines(base / "run"))
    checkpoint = base / "run" / "checkpoints" / step
    assert (checkpoint / "params").is_dir() and len(list((checkpoint / "data").glob("process_*-of-2.json"))) == 2


@pytest.mark.slow
def test_metrics_of_a_step_are_over_all_rows_whichever_process_holds_them(two, alone, base):
    run = lines(base / "run")  # rows were sharded over four processes up to step 20, then two had one each
    for step in range(1, STEPS + 1):
        got = {name: x for name, x in run[step].items() if re.match(r"tokens$|row_fill|model_flops|data/", name)}
        assert got["data/drawn/records"] >= 3 * step and got == {name: alone[8][step][name] for name in got}


# Two processes without training, which is cheap. With the argument "fails" a process raises, with "waits" it waits.
SHORT = """
import sys, threading, time
from molmo2_jax.train import distributed
distributed.HEARTBEAT_TIMEOUT = 5
distributed.start()
import jax
with distributed.fail_together():
    for number in range(2):
        print(distributed.gather(f"numbers/{number}", {"it": number + jax.process_index()}), flush=True)
    exchange = distributed.Exchange("letters", [0, 1])
    for number in range(3):
        print(exchange({"here": f"{'ab'[jax.process_index()]}{number}"}), flush=True)
    if jax.process_index() == 0:  # a round in which the other process sends nothing
        threading.Timer(0.2, exchange.close).start()
        try:
            exchange("alone")
        except distributed.ClosedError as error:
            print(error, flush=True)
    if sys.argv[1] == "fails":
        raise OSError("the mount is gone")
    if sys.argv[1] == "waits":
        time.sleep(600)
"""


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_process_ends_the_other_which_prints_it(tmp_path, failing):
    group = Group(tmp_path, [["-c", SHORT, "fails" if i == failing else "waits"] for i in range(2)])
    try:
        group.processes[failing].wait(TIMEOUT)
        assert group.statuses(MINUTE) == [1, 1]
    finally:
        group.kill()
    assert group.log(failing).endswith("OSError: the mount is gone\n") and "Traceback" in group.log(failing)
    assert group.log(1 - failing).endswith(f"process {failing} has stopped: OSError: the mount is gone\n")
    assert "[{'it': 0}, {'it': 1}]\n[{'it': 1}, {'it': 2}]" in group.log(0) and "None\nNone" in group.log(1)


def test_the_death_of_a_process_ends_those_that_wait_for_it(tmp_path):
    group = Group(tmp_path, [["-c", SHORT, "waits"]] * 2)
    try:
        group.until(lambda: "'b2'" in group.log(1))
        group.processes[1].kill()
        assert group.statuses(MINUTE)[0] == -signal.SIGABRT
    finally:
        group.kill()
    assert "the JAX distributed service detected fatal errors" in group.log(0)


def test_processes_without_an_error_end_together(tmp_path):
    group = Group(tmp_path, [["-c", SHORT, "ends"]] * 2)
    try:
        assert group.statuses(TIMEOUT) == [0, 0]
    finally:
        group.kill()
    received = "".join(f"[{{'here': 'a{turn}'}}, {{'here': 'b{turn}'}}]\n" for turn in range(3))
    assert received + "round 3 of molmo2/sent/letters/: the exchange is closed\n" in group.log(0)
    assert received in group.log(1)


PUT = """
import itertools, jax, numpy as np
from molmo2_jax import sharding
from molmo2_jax.train import distributed
distributed.start()
tokens, crops = np.arange(4 * 8).reshape(4, 8), np.arange(4 * 4 * 2 * 3).reshape(4, 4, 2, 3)
for sizes in ((4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 1, 4), (1, 2, 2)):
    for order in ((0, 1, 2, 3), (0, 2, 1, 3), (2, 0, 3, 1)):  # devices 0 and 1 are of process 0
        devices = [jax.devices()[i] for i in order]
        mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, (*sizes, 1))), devices)
        rows = sharding.local_rows(4, mesh)
        put = sharding.put_rows({"tokens": tokens[rows], "crops": crops[rows]}, mesh)
        for name, whole in (("tokens", tokens), ("crops", crops)):
            assert put[name].shape == whole.shape
            for shard in put[name].addressable_shards:
                d, f, c, _ = np.argwhere(mesh.devices == shard.device)[0]
                row, start = (d * sizes[1] + f) * 4 // (sizes[0] * sizes[1]), c * whole.shape[1] // sizes[2]
                part = [slice(row, row + shard.data.shape[0]), slice(start, start + shard.data.shape[1])]
                np.testing.assert_array_equal(shard.data, whole[tuple(part)])
        print(sizes, rows, sharding.row_sharers(4, mesh))
"""


def test_rows_are_put_on_their_devices_in_whatever_order_two_processes_have_these(tmp_path):
    group = Group(tmp_path, [["-c", PUT]] * 2, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    try:
        assert group.statuses(TIMEOUT) == [0, 0], group.log(0) + group.log(1)
    finally:
        group.kill()
    assert "(4, 1, 1) [0, 1] [0]\n(4, 1, 1) [0, 2] [0]\n" in group.log(0)
    assert "(1, 2, 2) [2, 3] [1]\n(1, 2, 2) [0, 1, 2, 3] [0, 1]\n" in group.log(1)


def test_a_workdir_that_is_not_one_folder_for_all_is_refused(tmp_path, monkeypatch):
    process_run.write_records(tmp_path / "records")
    monkeypatch.setattr(distributed, "gather", lambda name, value: [value, "20"])
    use_devices(monkeypatch, 1)
    with pytest.raises(
        ConfigError, match=r"workdir=.*run: the newest checkpoint differs between processes: \[None, '20'\]; mount one"
    ):
        process_run.train(tmp_path / "run", {})


ADDRESS, NUMBER, INDEX = distributed.VARIABLES
SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"}
GIVEN = {ADDRESS: "node1:1234", NUMBER: "2", INDEX: "1"}
HEARTBEAT = {"heartbeat_timeout_seconds": distributed.HEARTBEAT_TIMEOUT}
PARSED = {"coordinator_address": "node1:1234", "num_processes": 2, "process_id": 1}


@pytest.fixture
def started(monkeypatch):
    """The arguments that jax.distributed was started with, in an environment that the test sets."""
    calls = []
    for name in [name for name in os.environ if name.startswith(("JAX_", "SLURM_", "TPU_", "MEGASCALE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    platforms = jax.config.jax_platforms
    yield calls
    jax.config.update("jax_platforms", platforms)


@pytest.mark.parametrize(
    ("environment", "platforms", "calls"),
    [
        ({}, "cpu", []),
        (GIVEN, "cpu", [PARSED | HEARTBEAT | {"cluster_detection_method": "deactivate"}]),
        (GIVEN | {NUMBER: "1", INDEX: "0"}, "cpu", []),
        (GIVEN | SLURM, "cpu", [PARSED | HEARTBEAT | {"cluster_detection_method": "deactivate"}]),
        (SLURM, "cpu", [HEARTBEAT]),
        (SLURM | {ADDRESS: "node1:1234"}, "cpu", [HEARTBEAT]),
        (SLURM | {"SLURM_NTASKS": "1"}, "cpu", []),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu,cpu", [HEARTBEAT]),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "cpu", []),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "tpu,cpu", []),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "tpu", [HEARTBEAT]),
        ({}, "tpu,cpu", [HEARTBEAT]),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", []),
    ],
)
def test_the_environment_decides_whether_there_are_other_processes(started, monkeypatch, environment, platforms, calls):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    jax.config.update("jax_platforms", platforms)
    distributed.start()
    assert started == calls


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({ADDRESS: "a:1"}, f"{ADDRESS} is set, but not {NUMBER}, {INDEX}: several processes need all three"),
        ({NUMBER: "2"}, f"{NUMBER} is set, but not {ADDRESS}, {INDEX}"),
        (SLURM | {ADDRESS: "a:1", INDEX: "0"}, f"{ADDRESS}, {INDEX} is set, but not {NUMBER}"),
        (GIVEN | {NUMBER: "two"}, f"{NUMBER} = 'two' is not a number"),
        (GIVEN | {INDEX: "-1"}, f"{INDEX} = '-1' is not a number"),
        (GIVEN | {INDEX: "2"}, f"{INDEX} = 2, but {NUMBER} = 2: processes count from 0"),
        (GIVEN | {ADDRESS: "node1"}, f"{ADDRESS} = 'node1' must be HOST:PORT of process 0"),
    ],
)
def test_a_malformed_environment_is_refused_by_the_name_of_its_variable(started, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(message)):
        distributed.start()
    assert not started


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections loads configs the old way
def test_the_command_ends_with_the_message(started, molmo2, monkeypatch):
    monkeypatch.setenv(NUMBER, "2")
    config = ROOT / "experiments" / "overfit_video_point.py"
    status, _, err = molmo2("train", f"--config={config}", "--workdir=run")
    assert status == 1 and err.startswith(f"molmo2 train: {NUMBER} is set, but not {ADDRESS}, {INDEX}")
