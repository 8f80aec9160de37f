"""Attention under the mask of message trees.

Start with mask.py, the rule of who may attend to whom from three integers per token.
    dense.py            the oracle: softmax attention with the whole mask in memory
    interfaces.py       what a kernel and a context strategy are
    attention.py        the entry point: a kernel, a context strategy around it, and their derivative
    blockwise.py        kernel in plain JAX, any device          pallas_tpu.py    kernel for TPUs
    all_gather.py       context strategies: gather the keys,     ring.py          pass the keys around,
    ulysses.py          exchange tokens for heads                token_order.py   which device holds which tokens
    crop_attention.py   the ViT's attention within one crop, with its own TPU kernels in crop_attention_tpu.py
"""
