"""The view of tests: what is shown of media, as in the experiments, with few frames."""

from data_pipelines.sequence.view_config import ViewConfig

VIEW = ViewConfig(
    frame_sampling="uniform_last_frame",
    max_frames=8,
    fps=2.0,
    timestamps="per-frame-compact",
    subtitles="frame_1",
    max_subtitle_tokens=None,
    max_crops=8,
    high_res_crops=24,
    max_images=5,
    frame_tokens="im",
    image_groups="example",
)
