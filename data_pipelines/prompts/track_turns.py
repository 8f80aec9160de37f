"""Questions and answers with tracks. An answer contains only times at which the example has a sampled frame.

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

from data_pipelines.prompts.prompt_error import prompt_error, unwritable_as_prompt_error
from data_pipelines.prompts.templates import fill_template
from data_pipelines.records.annotations import Message
from data_pipelines.records.styles import STYLES
from data_pipelines.text.points import NO_POINTS, Point, write_points
from data_pipelines.text.tracks import TrackFrame, from_query, start_and_end, write_tracks

SAME_TIME = 0.01  # s; an annotated time is shown if a sampled frame is closer than this
DEFAULT_FPS = 2  # rate of the answer if the question names none
UNNAMED_RATE = 0.5  # share of questions at DEFAULT_FPS that do not name the rate
LATER_QUERY = 0.2  # share of single points that are drawn from all times; the others are at the first


def write_track_turn(
    message: Message, templated: bool, version: str, times: np.ndarray, rng: np.random.Generator
) -> tuple[str, str]:
    """The user's text and the tracks. `times`: sampled frames of the video, in seconds since the start of the clip.

    If nothing is annotated, the answer is "There are none.". Raises ExampleError if something is annotated, but not
    visible in a sampled frame.
    """
    answer = dataclasses.replace(message.answer, fps=_shown_rate(message.answer.fps, times))
    message, style = dataclasses.replace(message, answer=answer), message.style
    single = style == "video_single_point_track_per_frame"
    if not answer.frames and not single:
        return _track_question(message, templated, None, rng), NO_POINTS
    frames = [frame for frame in answer.frames if frame.points and np.abs(times - frame.time).min() < SAME_TIME]
    query = None
    if style == "video_point_ground_start_end":
        with unwritable_as_prompt_error(style):
            frames = start_and_end(frames)
    elif single:
        query, frames = _draw_query(message, frames, rng)
    else:
        frames = _frames_on_grid(frames, answer.fps)
    if not frames:
        raise prompt_error(style, f"nothing of {answer.label!r} is visible in the sampled frames", "unwritable")
    with unwritable_as_prompt_error(style):
        query_tag = query and write_points(answer.label, [query], version=version)
        tracks = write_tracks(answer.label, frames, version=version)
    return _track_question(message, templated, query_tag, rng), tracks


def _shown_rate(fps: int, times: np.ndarray) -> int:
    """The rate of an answer with frames at `times`: annotated at 6, sampled at 3 -> 3; 2, sampled at 3 -> 1.

    If the frames are not sampled at an integer rate, it is the annotated rate, and they show the times that they hit.
    """
    if len(times) < 2:
        return fps
    sampled = 1 / float(np.median(np.diff(times)))
    return math.gcd(fps, round(sampled)) if abs(sampled - round(sampled)) < SAME_TIME and round(sampled) else fps


def _track_question(message: Message, templated: bool, query: str | None, rng: np.random.Generator) -> str:
    given = message.question if message.user is None else message.user
    if given is not None:
        return given
    tracks, asks = message.answer, STYLES[message.style].asks
    if not templated:
        return query or tracks.label
    if query is not None:
        return fill_template(asks, rng, input_points=query, fps=str(tracks.fps))
    if asks == "video_point_ground_start_end":
        return fill_template(asks, rng, label=tracks.label)
    if tracks.fps == DEFAULT_FPS and rng.random() < UNNAMED_RATE:
        return fill_template(f"{asks}_default_fps", rng, label=tracks.label)
    return fill_template(asks, rng, label=tracks.label, fps=str(tracks.fps))


def _frames_on_grid(frames: Sequence[TrackFrame], fps: int) -> list[TrackFrame]:
    """Frames at multiples of 1/fps seconds."""
    return [frame for frame in frames if abs(round(frame.time * fps) / fps - frame.time) < SAME_TIME]


def _draw_query(
    message: Message, frames: Sequence[TrackFrame], rng: np.random.Generator
) -> tuple[Point | None, Sequence[TrackFrame]]:
    """The queried position of the one object, and the later frames with it. (None, ()) if no position has later frames.

    The position is mostly the first, else drawn from all with later frames. If the record has the question, it is the
    first.
    """
    ids = sorted({name for frame in message.answer.frames for name in frame.points})
    if len(ids) != 1:
        raise prompt_error(message.style, f"exactly one object must be annotated, not {ids}", "bad_record")
    (name,) = ids
    frames = sorted(frames, key=lambda frame: frame.time)
    grid = _frames_on_grid(frames, message.answer.fps)
    candidates = [frame for frame in frames if grid and frame.time < grid[-1].time]
    if not candidates:
        return None, ()
    has_question = message.user is not None or message.question is not None
    later = not has_question and rng.random() < LATER_QUERY
    start = candidates[rng.integers(len(candidates))] if later else candidates[0]
    return Point(float(start.time), *start.points[name]), from_query(grid, name, start.time)
