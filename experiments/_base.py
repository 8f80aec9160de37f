"""What every experiment shares. A config is a program: read it top to bottom; every key is spelled out."""

import pathlib

from ml_collections import ConfigDict

HERE = pathlib.Path(__file__).resolve().parent  # records that ship with the project lie beside the configs


def data(**numbers) -> ConfigDict:
    """Keys of molmo2_jax/data/config.py that the recipe keeps fixed, and the given ones."""
    return ConfigDict(
        {
            "missing": "stop",  # every dataset of the mixture has to be there
            "prompts": "none",  # questions as the records have them
            "style_prefix": "none",
            "points_format": "html-v2",  # <points coords="0.5 1 120 500;1.0 1 122 498">
            "token_weights": "length",
            "frame_sampling": "uniform_last_frame",  # at fps from the start, and the last frame
            "timestamps": "per-frame-compact",  # "0.5 " before each frame
            "subtitles": "frame_1",  # lines within a second of a frame
            "max_subtitle_tokens": None,
            "high_res_crops": 24,  # where a dataset's high_res drew it
            "max_images": 5,
            "vision_shards": 1,  # mesh.context
            "overflow": "split",  # branches that do not fit a row go to another, with the media once more
            "workers": 0,  # decode in the loader's thread
            "vocab_size": 151_936,  # rows of Qwen3's embedding; Molmo2's special tokens follow
            "fps": 2.0,  # frames/s sampled from a video; the last frame is always among them
            "max_crops": 8,  # 378x378 crops of one image, beside its overview
            "frame_tokens": "im",  # <im_start>/<im_end> around each frame, as in the released processors
            "image_groups": "example",  # visual tokens of an example see each other in both directions
            "length_weight": 4.0,  # a token of an n-token answer weighs 4/sqrt(n) (paper; the public code has 2)
            "prefetch": 2,  # batches built ahead of the step
        }
        | numbers
    )


def records(**files: str) -> ConfigDict:
    """A mixture of JSON-lines files that lie beside the configs, by the square root of their sizes."""
    datasets = {
        name: {"source": str(HERE / file), "size": None, "rate": 1.0, "weight": None, "high_res": 0.0}
        for name, file in files.items()
    }
    return ConfigDict({"records": {"rate": 1.0, "datasets": datasets}})


def model(preset: str, **run) -> ConfigDict:
    """Keys of molmo2_jax/models/config.py: RunConfig."""
    return ConfigDict({"preset": preset, "attention": "blockwise"} | run)


def init_from(**sources) -> ConfigDict:
    """Where the numbers come from at step 0, by the recipe's parts: "fresh", "hf:NAME" or "orbax:FOLDER" for each of
    connector (with the new tokens' embeddings), vit and llm.
    """
    patterns = {"connector": r"connector/.*|llm/embed/new", "vit": r"vit/.*", "llm": r"llm/(?!embed/new).*"}
    return ConfigDict({part: {"pattern": patterns[part], "source": source} for part, source in sources.items()})


def optim(*, connector: tuple[float, int], vit: tuple[float, int], llm: tuple[float, int]) -> ConfigDict:
    """AdamW in the recipe's three groups, each (peak learning rate, warm-up steps). The base embedding is frozen."""
    groups = {
        "connector": (r"connector/.*|llm/embed/new", *connector),
        "vit": (r"vit/.*", *vit),
        "llm": (r"llm/(blocks/.*|norm/.*|head)", *llm),
    }
    return ConfigDict(
        {
            "groups": {name: {"pattern": p, "lr": lr, "warmup": w} for name, (p, lr, w) in groups.items()},
            "frozen": r"llm/embed/base",  # so is the head where it is tied to it (4B)
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-6,
            "weight_decay": 0.0,
            "clip": 1.0,  # each group by its own norm
            "end_lr": 0.1,  # cosine ends at a tenth of the peak
        }
    )


def mesh(**sizes) -> ConfigDict:
    """Devices along each mesh axis; the product is the number of devices."""
    return ConfigDict({"data": 1, "fsdp": 1, "context": 1, "tensor": 1} | sizes)
