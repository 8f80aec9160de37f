"""Stage 2: fine-tuning on everything: images, sets of images, video, pointing, tracking, questions, text.

118 datasets in 8 groups, packed into rows of 16,384 tokens and 128 crops: one long video, or a dozen images, or
any examples that fit together. Questions are worded by hundreds of templates; answers are weighted by length.

    molmo2 train --config=experiments/stage2_sft.py:8b,data=/mnt/molmo2,from=/mnt/runs/stage1 --workdir=...
    molmo2 train --config=experiments/stage2_sft.py:debug,from=runs/stage1_debug --workdir=runs/stage2_debug

Values: arXiv 2601.10611 and its launch_scripts/sft.py.
"""

from ml_collections import ConfigDict

from experiments import _base, _mixtures


def get_config(arg: str = "4b") -> ConfigDict:
    """`arg`: see _base.Arguments; `from` is the workdir of stage 1."""
    a = _base.Arguments.parse(arg)
    c = ConfigDict()
    c.seed = 50189
    c.steps = 30_000  # the released models; the script's own default, 300,000, would stretch the schedule
    c.batch = 128  # packed rows
    c.microbatches = 2  # on 64 chips one row per chip at a time
    c.z_loss = 1e-4
    c.log_every = 20
    c.mesh = _base.mesh(fsdp=64)
    c.compiler = _base.compiler()
    c.model = _base.model(
        a.preset,
        dtype="bfloat16",
        attention="pallas",  # the TPU kernels; "blockwise" runs anywhere
        remat="dots",  # 84 of 95 GiB on v5p; docs/pods.md has what fits other chips
        vit_remat="attention",
        loss_chunk=1024,
        residual_dropout=0.1,  # on every token: both rates are equal
        response_dropout=0.1,
    )
    c.data = _base.data(
        tokenizer=a.tokenizer,
        groups=_mixtures.fine_tuning(a.data),
        prompts={
            "templates": True,
            "style_prefix": "demo_or_style",  # "vqa2: " before academic questions, nothing before what people ask
        },
        view={"max_frames": 128},  # 63.5 s at 2 frames/s; longer videos are sampled at a lower rate
        row={"seq_len": 16_384, "crops": 128, "pooled": 14_336},
        loader={"pool": 1_000, "max_failure_rate": 0.02, "workers": 32},
    )
    c.init_from = _base.init_from(connector=a.source, vit=a.source, llm=a.source)
    c.optim = _base.optim(connector=(5e-6, 200), vit=(5e-6, 200), llm=(1e-5, 200))
    c.checkpoint = ConfigDict({"every": 1_000, "keep": 3})
    if a.debug:
        _base.shrink(c)
    return c
