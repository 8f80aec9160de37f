"""Packing examples into rows of fixed length.

Start with `schema.py`: the arrays of a row, with their shapes, dtypes and pads. `fit.py` splits examples that are
longer than a row, `pack.py` chooses by lengths which examples share a row, `vision_shards.py` assigns crops to devices,
and `row.py` writes the arrays.
"""
