"""Datasets: from published tables and downloaded media to the folders that training reads.

One file per family of datasets (molmo2_cap.py, molmo2_video_point.py, pixmo_points.py) makes drafts, that is, examples
whose media are not probed yet, of the rows of its table. core/ does what all datasets share: it reads tables, stores
drafts with TFDS, probes and archives media. samples/ has a few rows and media of each family, for tests.

Start with catalog.py, the list of all datasets, and core/entry.py. The command is `python -m data_pipelines`. Preparing
needs the extra `data` (TFDS, pyarrow); importing this package does not.
"""
