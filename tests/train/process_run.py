"""One process of several that train a small model: `molmo2 train` without flags, for tests/train/test_processes.py.

    python -m tests.train.process_run WORKDIR 'JSON of changes to small_run.config' [PLAN]

PLAN is what happens to it: "fail:3" raises before step 3, "slow" waits a little in every step.
"""

import json
import sys
import time

from molmo2_jax import sharding
from molmo2_jax.tools import train_command
from tests.train import small_run


def main(workdir: str, changes: str, plan: str = "") -> int:
    put_rows = sharding.put_rows
    calls = []

    def planned(rows, mesh):
        calls.append(1)
        if plan == f"fail:{len(calls)}":
            raise OSError("the mount of the clips is gone")
        if plan == "slow":
            time.sleep(0.3)
        return put_rows(rows, mesh)

    sharding.put_rows = planned
    return train_command.train(small_run.config(**json.loads(changes)), workdir)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
