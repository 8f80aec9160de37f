"""What can be wrong with an example. It costs that example, is counted by dataset and reason, and stops no row."""

REASONS = {  # what a count of failures is filed under
    "bad_record": "keys, types or texts of the record are wrong",
    "bad_options": "multiple choice without a right answer, or with the same option twice",
    "bad_time": "a time is negative, out of order or outside the clip",
    "outside_frame": "a point is outside its frame",
    "unwritable": "an annotation that its text format cannot hold",
    "too_long": "its media and shortest message need more tokens than a row has",
    "too_many_crops": "its media need more crops or visual tokens than a row has",
    "no_file": "the medium is not there",
    "unreadable": "the medium is there, but its bytes could not be read",
    "empty_file": "the medium has no bytes",
    "other_file": "the medium is not the one that was annotated",
    "not_media": "the file is no image or video, or one of a kind that is not read",
    "no_video": "a file with sound or covers only",
    "no_frames": "a video without frames, or of zero duration",
    "cut_off": "the medium ends before it should",
    "undecodable": "the decoder gave up",
    "too_deep": "an image of more than 8 bits a channel",
    "decoder_died": "the process that decoded it died",
}


class ExampleError(ValueError):
    """An example that cannot be used. The message names the record or file and what is wrong; `reason` is of REASONS.

    Whoever packs rows catches this one, gives up the example and counts it; every other error stops the run.
    """

    def __init__(self, message: str, reason: str):
        if reason not in REASONS:
            raise TypeError(f"{reason!r} is no reason to give up an example; they are {sorted(REASONS)}")
        super().__init__(message, reason)  # both, so that it travels between processes
        self.reason = reason

    def __str__(self) -> str:
        return self.args[0]


class MediaError(ExampleError):
    """A medium cannot be used. The message names the file and what is wrong with it.

    clips/a.mp4: cut off: 117 of 250 frames are there
    """

    def __init__(self, message: str, reason: str = "undecodable"):
        super().__init__(message, reason)
