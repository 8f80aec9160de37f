"""Experiments: each file is a config, a short program that spells out every key. `_base.py` has what they share."""
