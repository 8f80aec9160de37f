"""Stage 1, pre-training: align the connector with the language model, on captions, points and text.

Images only. Everything trains: the connector fast, the ViT and the language model slowly. 31,000 steps of 128 rows of
2,536 tokens, about 10 billion tokens.

    molmo2 train --config=experiments/stage1_pretrain.py:8b,data=/mnt/molmo2 --workdir=/mnt/runs/stage1
    molmo2 train --config=experiments/stage1_pretrain.py:debug --workdir=runs/stage1_debug       5 steps on a laptop

Values: arXiv 2601.10611 and its launch_scripts/pretrain.py.
"""

from ml_collections import ConfigDict

from experiments import _base, _mixtures


def get_config(arg: str = "4b") -> ConfigDict:
    """`arg`: see _base.Arguments."""
    a = _base.Arguments.parse(arg)
    c = ConfigDict()
    c.seed = 95818
    c.steps = 31_000
    c.batch = 128  # packed rows
    c.microbatches = 1
    c.z_loss = 1e-4
    c.log_every = 20
    c.mesh = _base.mesh(fsdp=64)  # devices; any slice by --config.mesh.fsdp=
    c.compiler = _base.compiler()
    c.model = _base.model(
        a.preset,
        dtype="bfloat16",
        attention="pallas",  # the TPU kernels; "blockwise" runs anywhere
        remat="full",
        vit_remat="full",
        loss_chunk=1024,
        residual_dropout=0.0,
        response_dropout=0.1,  # on answers only
    )
    c.data = _base.data(
        tokenizer=a.tokenizer,
        groups=_mixtures.pretrain(a.data),
        prompts={
            "templates": False,  # bare questions; the style prefix names the kind of answer and its length
            "style_prefix": "style_and_length",  # "long_caption 83: ", a tenth of them without the number
            "points_format": "html-v1",
        },
        token_weights={"mode": "one"},  # every answer token weighs 1
        row={
            "seq_len": 2_536,
            "crops": 16,  # an image has up to 8 crops and an overview
            "pooled": 2_400,
        },
        loader={"pool": 1_000, "max_failure_rate": 0.02, "workers": 16},
    )
    c.init_from = _base.init_from(connector="random", vit="hf:google/siglip2-so400m-patch14-384", llm=a.llm)
    c.optim = _base.optim(connector=(2e-4, 200), vit=(6e-6, 2_000), llm=(2e-5, 2_000))
    c.checkpoint = ConfigDict({"every": 1_000, "keep": 3})
    if a.debug:
        c.init_from = _base.init_from(connector="random", vit="random", llm="random")
        _base.shrink(c)
    return c
