"""Prompts: from an annotated message to the texts of a turn."""

from molmo2_jax.data.prompts.turn import PromptConfig, Written, write_turn

__all__ = ["PromptConfig", "Written", "write_turn"]
