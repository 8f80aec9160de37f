"""How a message that cannot be written is refused: with its style, and what is wrong with it."""

import contextlib
from collections.abc import Iterator

from molmo2_jax.data.failure import ExampleError


def trouble(style: str, what: str, reason: str) -> ExampleError:
    """style 'video_multiple_choice': no option is right (reason "bad_options")"""
    return ExampleError(f"style {style!r}: {what}", reason)


@contextlib.contextmanager
def writing(style: str) -> Iterator[None]:
    """Around the writers of text/: what their formats cannot hold costs the example."""
    try:
        yield
    except ValueError as error:
        raise trouble(style, str(error), "unwritable") from error
