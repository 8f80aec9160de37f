"""From datasets to batches: the grain pipeline.

Start with `data.py`: `Data` opens the datasets of a config, and `Data.loader` makes the batches of a host.
`dataset.py` and `mixture.py` say what is drawn and how often, `draws.py` and `stream.py` in which order and rows,
`batches.py` lays out and decodes a batch with the processes of `decode_workers.py`, and `loader.py` prepares batches
ahead and restores a position. `shared_rows.py` keeps hosts that share rows consistent; `training_counts.py` counts.
"""
