"""One example as a token sequence: visual tokens, the tree of messages below them, and loss weights.

Start with `example.py`: `describe` plans an example without decoding it. `visual_layout.py` lays out images and videos,
`message_tree.py` the messages (positions, visibility, targets), `token_weights.py` weights the answers;
`view_config.py` has the settings of what is shown of media.
"""
