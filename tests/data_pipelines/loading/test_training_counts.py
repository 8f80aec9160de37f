import json

from data_pipelines.loading.training_counts import Counts


def counted():
    counts = Counts()
    counts.used("street", tokens=100, loss_tokens=10, first=True)
    counts.used("street", tokens=40, loss_tokens=4, first=True)
    counts.used("street", tokens=10, loss_tokens=1, first=False)
    counts.dropped("street", 2)
    counts.failed("street", "cut_off")
    counts.failed("street", "no_file")
    counts.failed("street", "cut_off")
    counts.used("texts", tokens=7, loss_tokens=3, first=True)
    return counts


def test_examples_are_counted_by_dataset_and_failures_by_reason():
    street = counted().datasets["street"]
    assert (street.examples, street.tokens, street.loss_tokens, street.dropped) == (2, 150, 15, 2)
    assert street.failures == {"cut_off": 2, "no_file": 1}
    assert (street.failed, street.drawn) == (3, 5)
    total = counted().total()
    assert (total.examples, total.tokens, total.failed, total.drawn) == (3, 157, 3, 6)


def test_counts_survive_json_and_add_up():
    saved = json.loads(json.dumps(counted().to_json()))
    again = Counts.from_json(saved)
    assert again.to_json() == saved
    again.failed("street", "no_file")
    assert saved["street"]["failures"] == {"cut_off": 2, "no_file": 1}  # no shared state
    again.add(counted())
    assert again.datasets["street"].examples == 4 and again.datasets["street"].failures == {"cut_off": 4, "no_file": 3}


def test_a_drift_is_seen_in_the_table():
    table = counted().table({"street": 0.5, "texts": 0.4, "never": 0.1}).splitlines()
    assert table[0].split() == [
        "dataset",
        "configured",
        "drawn",
        "examples",
        "tokens",
        "loss_tokens",
        "dropped",
        "failed",
    ]
    assert table[1].split() == ["never", "10.00%", "0.00%", "0", "0", "0", "0", "0"]
    assert table[2].split()[:5] == ["street", "50.00%", "83.33%", "2", "150"]
    assert table[2].endswith("3: 2 cut_off, 1 no_file")
