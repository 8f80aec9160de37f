"""The three stages: their mixtures against the recipe's values, and small runs of all of them, one after the other."""

import math
import re

import jax
import pytest

from data_pipelines.datasets.catalog import ENTRIES
from data_pipelines.loading.mixture import configured_shares
from data_pipelines.records import styles
from data_pipelines.records.styles import STYLES
from molmo2_jax.train import loop, setup
from molmo2_jax.train.config import read
from molmo2_jax.weights.checkpoint_files import newest_step
from tests.molmo2_jax.train.recipe import experiment

STAGES = ("stage1_pretrain", "stage2_sft", "stage3_long_context")


def stage(name, arg):
    return read(experiment(name, arg).to_dict())


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("size", "preset"), [("4b", "molmo2_4b"), ("8b", "molmo2_8b"), ("o7b", "molmo2_o_7b")])
def test_a_stage_is_read_for_every_size(name, size, preset):
    c = stage(name, f"{size},data=/somewhere,from=/before")
    assert c.model.preset == preset and c.batch == 128
    assert c.data.row.crops % c.mesh["context"] == c.data.row.pooled % c.mesh["context"] == 0
    sources = [one.source for group in c.data.mixture.groups.values() for one in group.datasets.values()]
    assert all(source.startswith("/somewhere/") for source in sources)
    expected = {
        "stage1_pretrain": {"random"},
        "stage2_sft": {"orbax:/before"},
        "stage3_long_context": {"orbax:/before"},
    }
    assert c.init_from["connector"].source in expected[name]


@pytest.mark.parametrize("arg", ["70b", "data=", "debug;4b", "size=4b", ""])
def test_an_unknown_argument_is_named(arg):
    with pytest.raises(ValueError, match="is not one of 4b, 8b, o7b, debug"):
        experiment("stage2_sft", arg)


def rates_of(name, lengths=None):
    groups = stage(name, "4b").data.mixture.groups
    names = [dataset for group in groups.values() for dataset in group.datasets]
    return groups, configured_shares(groups, {n: (lengths or {}).get(n) for n in names})


def test_the_pretraining_groups_have_the_recipe_s_rates():
    groups, shares = rates_of("stage1_pretrain")
    assert {name: group.rate for name, group in groups.items()} == {"captions": 0.6, "pointing": 0.3, "text": 0.1}
    assert shares["pixmo_cap_with_transcripts"] == pytest.approx(0.6, abs=1e-6)
    assert shares["tulu4_max_2304"] == pytest.approx(0.1, abs=1e-6)


def test_the_fine_tuning_groups_have_the_recipe_s_rates():
    groups, shares = rates_of("stage2_sft")
    total = sum(group.rate for group in groups.values())
    percent = {name: 100 * group.rate / total for name, group in groups.items()}
    assert percent == pytest.approx(
        {
            "demo": 13.64,
            "video_academic": 18.18,
            "image_academic": 22.73,
            "tracking": 13.64,
            "video_pointing": 13.64,
            "image_pointing": 9.09,
            "text": 9.05,
            "hardcodes": 0.045,
        },
        abs=0.006,
    )
    assert {name: len(group.datasets) for name, group in groups.items()} == {
        "demo": 6,
        "video_academic": 34,
        "image_academic": 32,
        "tracking": 35,
        "video_pointing": 4,
        "image_pointing": 5,
        "text": 1,
        "hardcodes": 1,
    }
    known = {
        "vixmo_points_minmax_0_5": 0.15 / 1.1 * 0.4,
        "vixmo_points_minmax_6_25": 0.15 / 1.1 * 0.3,
        "vixmo_points_minmax_26_60": 0.15 / 1.1 * 0.1,
        "academic_points_clip_63s_2fps": 0.15 / 1.1 * 0.2,
        "tulu4": 0.0995 / 1.1,
        "molmo2_hardcodes": 0.0005 / 1.1,
    }
    assert {name: shares[name] for name in known} == pytest.approx(known, abs=1e-6)


def test_sizes_that_become_known_give_the_other_rates():
    groups = stage("stage2_sft", "4b").data.mixture.groups
    lengths = {name: 400 + 7 * i for i, name in enumerate(n for group in groups.values() for n in group.datasets)}
    _, shares = rates_of("stage2_sft", lengths)
    weights = {
        "mevis_track": 0.4,
        "burst_track": 0.05,
        "vicas_ground": 0.2,
        "burst_ground": 0.01,
        "got10k_from_box": 0.2,
    }
    for name, weight in weights.items():
        size = 30_000 if name.startswith("vicas") else lengths[name]
        counted = weight / 1.11 * math.sqrt(size)
        other = lengths["webuav_from_box"]
        expected = counted / (0.2 / 1.11 * math.sqrt(other)) * shares["webuav_from_box"]
        assert shares[name] == pytest.approx(expected, rel=1e-6)
    captions, asked = "vixmo3_top_level_captions_min_3", "pixmo_ask_model_anything"
    assert shares[captions] / shares[asked] == pytest.approx(1.5 * math.sqrt(lengths[captions] / lengths[asked]))
    assert shares["pixmo_cap"] / shares[asked] == pytest.approx(math.sqrt(100_000 / lengths[asked]))
    assert sum(shares.values()) == pytest.approx(1)


def test_every_dataset_that_can_be_built_is_in_the_mixtures():
    groups = stage("stage2_sft", "4b,data=/somewhere").data.mixture.groups
    sources = {one.source for group in groups.values() for one in group.datasets.values()}
    assert {f"/somewhere/{name}" for name in ENTRIES} <= sources


def test_flat_weights_are_those_of_the_styles():
    points = {styles.IMAGE_POINTS, styles.IMAGES_POINTS, styles.VIDEO_POINTS, styles.TRACKS}
    pointing = {name for name, style in STYLES.items() if style.kind in points}
    video_captions = {"video_short_caption", "video_long_caption", "video_merged_caption"}
    flat = {name: style.flat_weight for name, style in STYLES.items() if style.flat_weight is not None}
    assert flat == dict.fromkeys(pointing, 0.2) | dict.fromkeys(video_captions, 0.1)
    assert len(pointing) == 6 + 4 + 4 + 3  # of an image, of several images, of videos, tracks


@pytest.mark.parametrize("name", STAGES)
def test_no_dataset_has_a_weight_of_its_own(name):
    datasets = [d for group in stage(name, "4b").data.mixture.groups.values() for d in group.datasets.values()]
    assert len(datasets) > 5 and {d.weight for d in datasets} == {None}


def test_high_resolution_is_where_the_recipe_has_it():
    groups = stage("stage2_sft", "4b").data.mixture.groups
    datasets = {name: d for group in groups.values() for name, d in group.datasets.items()}
    assert {d.high_res for name, d in datasets.items() if name.endswith("points_train")} == {0.3}
    assert sum(d.high_res > 0 for d in datasets.values()) == 5
    assert {d.high_res for d in groups["image_pointing"].datasets.values()} == {0.3}
    pretraining = stage("stage1_pretrain", "4b").data.mixture.groups.values()
    assert {d.high_res for group in pretraining for d in group.datasets.values()} == {0.0}


def test_small_runs_of_the_stages_start_each_from_the_one_before(tmp_path, capsys, monkeypatch):
    def jit_step(step, mesh, compiler):  # five steps of these rows are worth a few optimisations
        return jax.jit(step, donate_argnums=0, compiler_options={"xla_backend_optimization_level": 1})

    monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
    monkeypatch.setattr(setup, "jit_step", jit_step)
    workdirs = [tmp_path / name for name in STAGES]
    before = None
    for name, workdir in zip(STAGES, workdirs, strict=True):
        c = stage(name, "debug" if before is None else f"debug,from={before}")
        state = loop.train(c, workdir)
        err = capsys.readouterr().err
        assert int(state.step) == 5
        assert re.search("datasets (is|are) missing and not drawn", err) and "pixmo_points_train" in err
        table = err[err.index("step 5: drawn since step 0") :]
        assert "configured" in table and "pixmo_points_train" in table
        if before is not None:
            assert str(before) in err  # the source of the parameters
        assert newest_step(workdir).name == "5"
        before = workdir
