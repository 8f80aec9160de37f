"""The recipe's mixtures as tables. Names, rates and sizes are those of the public reference (launch_scripts/pretrain.py
and sft.py; arXiv 2601.10611 describes the groups).

A group has a rate; the rates of a mixture are scaled to a sum of 1. Within its group a dataset counts by the square
root of its number of examples. A row of a table is a name, or (name, size to count with in place of that number), or
(name, size, factor on what it then counts).
"""

import pathlib

from ml_collections import ConfigDict

HIGH_RES = 0.3  # share of the images to point at that are cut into up to 24 crops instead of 8

# Stage 1 ---------------------------------------------------------------------------------------------------------

PRETRAIN = {
    "captions": (0.6, ["pixmo_cap_with_transcripts"]),  # a long caption, and one spoken transcript of several
    "pointing": (0.3, ["pixmo_points_train", "pixmo_count_train", "pixmo_points_high_freq_train", "cosyn_point"]),
    "text": (0.1, ["tulu4_max_2304"]),  # first messages of up to 2,304 tokens
}

# Stages 2 and 3 --------------------------------------------------------------------------------------------------

DEMO = [  # what people ask for: free questions, captions
    "pixmo_ask_model_anything",
    ("pixmo_cap", 100_000),
    "pixmo_cap_qa_as_user_qa",
    "pixmo_multi_image_qa_multi_only_max5",  # 2 to 5 images
    "molmo2_human_qa",
    ("vixmo3_top_level_captions_min_3", None, 1.5),
]

IMAGE_ACADEMIC = [
    "coco_2014_vqa_multi",
    "text_vqa",
    "okvqa",
    "chart_qa_weighted",  # questions by people weigh 1.48, those by machines 0.52
    "doc_qa",
    "info_qa",
    "ai2_diagram_v2_mix_transparent",
    "a_okvqa_mc",
    "a_okvqa_da",
    "science_qa_img",
    "tabwmp_da",
    "st_qa",
    "tally_qa",
    "mantis_instruct_llava_665k_multi_multi_only",
    "mantis_instruct_nlvr2_multi_only",
    "mantis_instruct_spot-the-diff_multi_only",
    ("dv_qa", 10_000),
    ("figure_qa", 10_000),
    ("plot_qa", 20_000),
    "cosyn_chart_exp",  # rendered images, answers with their reasoning
    "cosyn_chemical_exp",
    "cosyn_diagram_exp",
    "cosyn_math_exp",
    "cosyn_music_exp",
    "cosyn_table_exp",
    "cosyn_document",
    "cosyn_multidoc_chart_exp",
    "cosyn_multidoc_chemical_exp",
    "cosyn_multidoc_diagram_exp",
    "cosyn_multidoc_doc_exp",
    "cosyn_multidoc_music_exp",
    "cosyn_multidoc_table_exp",
]

VIDEO_ACADEMIC = [
    ("tgif", 60_000),
    ("tvqa_with_sub", 60_000),
    ("paxion", 60_000),
    "llava_video_mc_academic",
    "llava_video_oe_academic",
    "perception_test",
    "nextqa_mc",
    "news_video_qa_filtered",
    "how2qa",
    "sutd_trafficqa",
    "social_iq2",
    "sportsqa_oe",
    "cinepile_with_sub",
    "clevrer",
    "funqa",
    "star",
    "intent_qa",
    "video_localized_narratives",
    "road_text_vqa",
    "countix_oe",
    "camerabench_qa",
    "motionbench_train",
    ("moments_in_time_qa", 60_000),
    ("kinetics_qa", 60_000),
    "charades_sta_all_qa",
    "coin_all_qa",
    "youcook2_all_qa",
    "activitynet_all_qa",
    "ego4d_all",
    "epic_kitchens_qa",
    "video_localized_narratives_caption",
    "qv_highlights",
    "molmo2_syn_captions_qa",  # vixmo_syn_video_capqa_v2 in the scripts, which do not define it
    "molmo2_syn_captions_subtitle_qa",
]

# Each dataset of a task counts by its weight / 1.11 (the sum of the seven weights); datasets do not share the weight.
TRACKING_TASKS = {
    "track": (0.40, ["mevis", "ref_yt_vos", "lv_vis", ("vicas", 30_000), "revos", "molmo2_video_track"]),
    "track_tail": (0.05, ["burst", "ref_davis17", "yt_vis", "moca"]),
    "ground": (0.20, ["mevis", "lv_vis", ("vicas", 30_000), "revos", "molmo2_video_track"]),
    "ground_tail": (0.01, ["burst", "moca"]),
    "single_point": (0.15, ["mevis", "lv_vis", ("vicas", 30_000), "revos", "molmo2_video"]),
    "from_box": (0.20, ["webuav", "got10k", "vasttrack", "trackingnet"]),
    "from_box_tail": (0.10, ["burst", "lvosv1", "lvosv2", "lasot", "uwcot", "webuot", "latot", "tnl2k", "tnllt"]),
}
TRACKING = [
    (f"{name}_{task.removesuffix('_tail')}", size, weight / 1.11)
    for task, (weight, rows) in TRACKING_TASKS.items()
    for name, size in (row if isinstance(row, tuple) else (row, None) for row in rows)
]

VIDEO_POINTING = [  # size 1: the factors are the shares themselves
    ("vixmo_points_minmax_0_5", 1, 0.4),  # by the number of points
    ("vixmo_points_minmax_6_25", 1, 0.3),
    ("vixmo_points_minmax_26_60", 1, 0.1),
    ("academic_points_clip_63s_2fps", 1, 0.2),
]

IMAGE_POINTING = [
    ("pixmo_multi_points", 200_000),
    "pixmo_points_train",
    "pixmo_count_train",
    "pixmo_points_high_freq_train",
    "cosyn_point",
]

FINE_TUNING = {
    "demo": (0.15, DEMO),
    "video_academic": (0.20, VIDEO_ACADEMIC),
    "image_academic": (0.25, IMAGE_ACADEMIC),
    "tracking": (0.15, TRACKING),
    "video_pointing": (0.15, VIDEO_POINTING),
    "image_pointing": (0.10, IMAGE_POINTING),
    "text": (0.0995, ["tulu4"]),  # first messages of up to 4,096 tokens
    "hardcodes": (0.0005, ["molmo2_hardcodes"]),  # questions about the model itself
}


def pretrain(root: str | pathlib.Path) -> ConfigDict:
    """The mixture of stage 1; prepared datasets are folders of `root`."""
    return _mixture(PRETRAIN, root, high_res={})


def fine_tuning(root: str | pathlib.Path) -> ConfigDict:
    """The mixture of stages 2 and 3."""
    return _mixture(FINE_TUNING, root, high_res={"image_pointing": HIGH_RES})


def _mixture(table: dict, root: str | pathlib.Path, high_res: dict) -> ConfigDict:
    mixture = ConfigDict()
    for group, (rate, rows) in table.items():
        mixture[group] = ConfigDict({"rate": rate, "datasets": {}})
        for row in rows:
            name, size, factor = (*(row if isinstance(row, tuple) else (row,)), None, None)[:3]
            mixture[group].datasets[name] = {
                "source": f"{root}/{name}",
                "size": None if size is None else float(size),
                "rate": 1.0 if factor is None else factor,
                "weight": None,  # answer tokens weigh as their style says (data_pipelines/records/styles.py)
                "high_res": high_res.get(group, 0.0),
            }
    return mixture
