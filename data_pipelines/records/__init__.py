"""Annotated examples ("records"): their types, and how one is read from a line of JSON and written to it.

A record names its media (a video, an image, several images) and holds a tree of messages, each with an annotation:
text, a choice, points or tracks. Start with `read.py`, whose docstring shows a record; `annotations.py` has the types
that it becomes, `styles.py` the table of tasks, `read_messages.py` the JSON of each annotation, `problems.py` the
errors.
"""
