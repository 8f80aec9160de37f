"""The one error for a video or image that cannot be used."""


class MediaError(ValueError):
    """A medium cannot be used. The message names the file and what is wrong with it.

        clips/a.mp4: cut off: 117 of 250 frames are there

    Whoever packs rows catches this one, gives up the example and counts it; every other error stops the run.
    """
