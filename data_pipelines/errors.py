"""The errors of one example. They skip that example and are counted by dataset and reason; the run goes on."""

import re

REASONS = {  # reason -> what it means; failures are counted by reason
    "bad_record": "the record has wrong keys, types or texts",
    "bad_options": "multiple choice without a correct option, or with the same option twice",
    "bad_time": "a time is negative, out of order or outside the clip",
    "outside_frame": "a point is outside its frame",
    "unwritable": "the text format cannot hold the annotation",
    "too_long": "the media and the shortest message need more tokens than a row has",
    "too_many_crops": "the media need more crops or visual tokens than a row has",
    "no_file": "the media file does not exist",
    "unreadable": "the media file exists, but its bytes cannot be read",
    "empty_file": "the media file has no bytes",
    "wrong_file": "the media file is not the one that was annotated",
    "not_media": "the file is not an image or video of a supported kind",
    "no_video": "the file has no video stream, only sound or a cover picture",
    "no_frames": "the video has no frames, or its duration is zero",
    "cut_off": "the media file is incomplete: it ends too early",
    "undecodable": "the media file cannot be decoded",
    "bit_depth": "the image has more than 8 bits per channel",
    "decoder_died": "the process that decoded the media died",
}


def without_credentials(text: str) -> str:
    """Remove user, password and query from the URLs in a text, which end in logs.

    "https://ann:x@host/a.mp4?signature=y: no such file"  ->  "https://host/a.mp4: no such file"
    """
    return re.sub(r"(://)(?:[^\s/?#]*@)?([^\s?]*)(?:\?\S*?(?=[:,;)]{0,2}(?:\s|$)))?", r"\1\2", text)


class ExampleError(ValueError):
    """An example cannot be used. The message names the record or file and the problem; `reason` is a key of REASONS.

    The loader catches this error, skips the example and counts it. Every other error stops the run.
    """

    def __init__(self, message: str, reason: str):
        if reason not in REASONS:
            raise TypeError(f"unknown reason {reason!r} for an ExampleError; known: {sorted(REASONS)}")
        super().__init__(message, reason)  # both are in `args`, so that the error can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return without_credentials(self.args[0])


class MediaError(ExampleError):
    """A media file cannot be used. The message names the file and the problem.

    clips/a.mp4: cut off: it ends after 117 frames (4.68 s), its container lists more
    """

    def __init__(self, message: str, reason: str = "undecodable"):
        super().__init__(message, reason)
