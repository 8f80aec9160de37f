"""What all datasets share.

    entry.py          what is particular to one dataset, and the checks of its rows
    percent.py        points in percent of the frame, as tables have them, to annotations
    tables.py         rows of published tables
    tfds_builder.py   drafts stored with TFDS
    folder.py         drafts and media files to the folder that training reads
    prepare.py        all of this in order: start here

prepare.py and tfds_builder.py need TFDS; the command imports them only to prepare a dataset.
"""
