"""docs/tour.md is what scripts/tour.py writes today."""

import re

import pytest

from scripts import tour

_FLOAT = re.compile(r"^( {4}[\w/]+ +)([\d.e+-]+)$", re.MULTILINE)  # a metric, whose last digit depends on the machine


@pytest.fixture(scope="module")
def written():
    return tour.page()


def test_the_page_is_current(written):
    stored = tour.PAGE.read_text(encoding="utf-8")
    assert _FLOAT.sub(r"\1", stored) == _FLOAT.sub(r"\1", written), "run `python -m scripts.tour`"


def test_the_metrics_are_current(written):
    stored, now = (dict(_FLOAT.findall(page)) for page in (tour.PAGE.read_text(encoding="utf-8"), written))
    assert len(now) == 11 and now.keys() == stored.keys()
    assert {name: float(x) for name, x in now.items()} == pytest.approx(
        {n: float(x) for n, x in stored.items()}, rel=0.02
    )


def test_every_file_that_the_tour_names_exists():
    named = re.findall(r"`((?:data_pipelines|molmo2_jax|experiments)/[\w/.]+)", tour.PAGE.read_text(encoding="utf-8"))
    assert len(named) >= 12
    assert [name for name in named if not (tour.ROOT / name).is_file()] == []
