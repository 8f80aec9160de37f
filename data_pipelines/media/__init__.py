"""Videos and images: where they are, what they contain, and their frames and crops.

Start with `location.py` (a file, an archive entry, a URL or bytes) and `medium.py` (a video or image, probed but not
decoded). `frame_sampling.py` chooses the times of a video's frames. `decode_plan.py` states what to decode and what it
costs, `crops.py` turns pixels into 378 x 378 crops, `pooling.py` says which patches each visual token pools, and
`token_counts.py` how many tokens that makes. `video.py` and `image.py` decode files; `archive.py` reads prepared
datasets. Every error names the file.
"""
