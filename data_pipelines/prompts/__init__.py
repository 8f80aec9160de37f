"""Prompts: from an annotated message to the user's text and the answer of one turn.

Start with `turn.py`: `write_turn` chooses the writer for the message's style and adds the style prefix. The writers are
`text_turns.py`, `choice_turns.py`, `point_turns.py` and `track_turns.py`. `templates.py` lists the templates, whose
texts are in the `*_templates.py` files. Everything random is drawn from the generator that the caller passes.
"""

from data_pipelines.prompts.turn import PromptConfig, TurnText, write_turn

__all__ = ["PromptConfig", "TurnText", "write_turn"]
