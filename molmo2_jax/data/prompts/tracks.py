"""Tracks as a question and an answer. Only moments that the example's frames show are answered.

    frames sampled at 0.0, 0.5, 1.0 s; dogs annotated at 0.0, 0.25, 0.5, ... s with fps = 2

    per frame      Track the dogs.
                   ->  <tracks coords="0.0 1 ...;0.5 1 ...;1.0 1 ...">the dogs</tracks>
    start, end     Give the first and the last point of the dogs.
                   ->  <tracks coords="0.0 1 ...;1.0 1 ...">the dogs</tracks>
    single point   Continue this track at 2 fps: <points coords="0.0 1 469 556">the dog</points>
                   ->  <tracks coords="0.5 1 ...;1.0 1 ...">the dog</tracks>

Source: public reference olmo/preprocessing/data_formatter.py.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from molmo2_jax.data.annotations import Message
from molmo2_jax.data.prompts.templates import fill
from molmo2_jax.data.prompts.trouble import trouble, writing
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text.points import NOTHING, Point, write_points
from molmo2_jax.text.tracks import TrackFrame, from_query, start_and_end, write_tracks

SAME = 0.01  # s; a moment is shown if a sampled frame is nearer than this
DEFAULT_FPS = 2  # of answers to questions that name no rate
UNSAID = 0.5  # share of questions at that rate that do not name it
LATER_QUERY = 0.2  # share of single points drawn from all moments instead of the first


def write_track_turn(
    message: Message, templated: bool, version: str, times: np.ndarray, rng: np.random.Generator
) -> tuple[str, str]:
    """The user's text and the tracks. `times`: sampled frames of the video, seconds since the clip's start.

    Nothing annotated at all is an honest answer ("There are none."). Raises ExampleError where something is annotated,
    but nothing of it visible in sampled frames.
    """
    answer = dataclasses.replace(message.answer, fps=_shown_rate(message.answer.fps, times))
    message, style = dataclasses.replace(message, answer=answer), message.style
    single = style == "video_single_point_track_per_frame"
    if not answer.frames and not single:
        return _asked(message, templated, None, rng), NOTHING
    frames = [frame for frame in answer.frames if frame.points and np.abs(times - frame.time).min() < SAME]
    query = None
    if style == "video_point_ground_start_end":
        with writing(style):
            frames = start_and_end(frames)
    elif single:
        query, frames = _query(message, frames, rng)
    else:
        frames = _on_grid(frames, answer.fps)
    if not frames:
        raise trouble(style, f"nothing of {answer.label!r} is visible in the sampled frames", "unwritable")
    with writing(style):
        marked = query and write_points(answer.label, [query], version=version)
        tracks = write_tracks(answer.label, frames, version=version)
    return _asked(message, templated, marked, rng), tracks


def _shown_rate(fps: int, times: np.ndarray) -> int:
    """The rate that frames at `times` can answer at: annotated at 6, sampled at 3 -> 3; annotated at 2, at 3 -> 1.

    Frames that are not on a grid of whole frames a second show what of the annotated grid they hit.
    """
    if len(times) < 2:
        return fps
    sampled = 1 / float(np.median(np.diff(times)))
    return math.gcd(fps, round(sampled)) if abs(sampled - round(sampled)) < SAME and round(sampled) else fps


def _asked(message: Message, templated: bool, query: str | None, rng: np.random.Generator) -> str:
    given = message.question if message.user is None else message.user
    if given is not None:
        return given
    tracks, asks = message.answer, STYLES[message.style].asks
    if not templated:
        return query or tracks.label
    if query is not None:
        return fill(asks, rng, input_points=query, fps=str(tracks.fps))
    if asks == "video_point_ground_start_end":
        return fill(asks, rng, label=tracks.label)
    if tracks.fps == DEFAULT_FPS and rng.random() < UNSAID:
        return fill(f"{asks}_default_fps", rng, label=tracks.label)
    return fill(asks, rng, label=tracks.label, fps=str(tracks.fps))


def _on_grid(frames: Sequence[TrackFrame], fps: int) -> list[TrackFrame]:
    """Frames at multiples of 1/fps seconds."""
    return [frame for frame in frames if abs(round(frame.time * fps) / fps - frame.time) < SAME]


def _query(
    message: Message, frames: Sequence[TrackFrame], rng: np.random.Generator
) -> tuple[Point | None, Sequence[TrackFrame]]:
    """A moment of the one object, and its later frames: mostly its first moment, any one that has later ones else.

    Where the record brings the question, it is about the first moment.
    """
    ids = sorted({name for frame in message.answer.frames for name in frame.points})
    if len(ids) != 1:
        raise trouble(message.style, f"one object is to be followed, annotated are {ids}", "bad_record")
    (name,) = ids
    frames = sorted(frames, key=lambda frame: frame.time)
    grid = _on_grid(frames, message.answer.fps)
    askable = [frame for frame in frames if grid and frame.time < grid[-1].time]
    if not askable:
        return None, ()
    asked_for = message.user is not None or message.question is not None
    later = not asked_for and rng.random() < LATER_QUERY
    start = askable[rng.integers(len(askable))] if later else askable[0]
    return Point(float(start.time), *start.points[name]), from_query(grid, name, start.time)
