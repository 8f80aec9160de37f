"""Molmo2 as flax modules: a ViT, a connector and a decoder whose sizes are values.

Start with molmo2.py, the whole model from a packed row to its loss sums, then vit.py, connector.py and llm.py, its
three parts, and layers.py, what they share. config.py has the architectures, run_config.py how they are computed.
structure.py separates a model from its weights, which all other packages handle as a flat dict.
"""
