"""A stopped run continues byte for byte, on any number of hosts, each with a loader of its own rows."""

import json
from pathlib import Path

import pytest

from data_pipelines.loading.loader import merge_states
from data_pipelines.loading.mixture import DatasetConfig, MixtureGroup
from data_pipelines.packing.schema import FIELDS
from tests.data_pipelines.loading.loaders import take

SAMPLES = Path(__file__).parents[3] / "experiments" / "samples"


@pytest.fixture
def mixed(write_records):
    """Images, clips and texts, as a mixture for longer runs: prepared media are small and quick to decode."""
    ask = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}
    broken = {"at": "broken.mp4", "width": 64, "height": 48, "duration": 1.0}
    texts = write_records(
        *({"id": str(i), "messages": [ask] * 3} for i in range(5)),
        {"id": "broken", "video": broken, "messages": [ask]},
        {"id": "bad", "messages": [ask | {"style": "none"}]},
        name="texts.jsonl",
    )
    (texts.parent / "broken.mp4").write_bytes(b"no film")
    sources = {"points": SAMPLES / "pixmo_points_train", "clips": SAMPLES / "vixmo_points_minmax_0_5", "texts": texts}
    datasets = {name: DatasetConfig(str(source), 1.0, 1.0, None, 0.0) for name, source in sources.items()}
    changes = {"groups": {"all": MixtureGroup(1.0, datasets)}, "templates": True, "max_crops": 2}
    return changes | {
        "seq_len": 900,
        "crops": 6,
        "pooled": 700,
        "overflow": "split",
        "pool": 6,
        "max_failure_rate": 0.5,
    }


@pytest.mark.parametrize(
    ("stop", "hosts", "workers", "batches"), [(0, 1, 0, 4), (3, 2, 0, 50), (17, 4, 0, 50), (3, 1, 2, 50), (5, 2, 1, 4)]
)
def test_a_run_continues_byte_for_byte_on_any_number_of_hosts(open_loader, mixed, stop, hosts, workers, batches):
    rows = range(4)
    straight = open_loader(rows=rows, **mixed)
    take(straight, stop)
    # Saved by two hosts, which share the rows.
    halves = [open_loader(rows=half, **mixed) for half in ((0, 1), (2, 3))]
    for half in halves:
        take(half, stop)
    state = merge_states([json.loads(json.dumps(half.get_state())) for half in halves])
    assert state == straight.get_state()
    expected = take(straight, batches)
    resumed = [open_loader(rows=rows[host::hosts], **mixed, workers=workers) for host in range(hosts)]
    for host, loader in enumerate(resumed):
        loader.set_state(state)
        for a, b in zip(expected, take(loader, batches), strict=True):
            for name in FIELDS:
                assert a[name][host::hosts].tobytes() == b[name].tobytes(), name
            assert a["examples"][host::hosts] == b["examples"]
    assert merge_states([loader.get_state() for loader in resumed]) == straight.get_state()
    assert {e["dataset"] for batch in expected for row in batch["examples"] for e in row} == {
        "points",
        "clips",
        "texts",
    }
    if batches == 50:  # the broken record and medium come up, and are counted
        assert {"not_media", "bad_record"} <= set(expected[-1]["counts"]["texts"]["failures"])
