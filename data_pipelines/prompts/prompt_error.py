"""The error of a message that cannot be written: it names the style and the problem."""

import contextlib
from collections.abc import Iterator

from data_pipelines.errors import ExampleError


def prompt_error(style: str, problem: str, reason: str) -> ExampleError:
    """style 'video_multiple_choice': no option is correct (reason "bad_options")"""
    return ExampleError(f"style {style!r}: {problem}", reason)


@contextlib.contextmanager
def unwritable_as_prompt_error(style: str) -> Iterator[None]:
    """Turn a ValueError of the writers in text/, whose formats cannot hold every annotation, into an ExampleError."""
    try:
        yield
    except ValueError as error:
        raise prompt_error(style, str(error), "unwritable") from error
