"""The page of `molmo2 inspect`: packed rows, drawn from their arrays alone, in one self-contained HTML file.

Start with page.py: `render_page` reads rows and gives the page as text.

    row_reader.py        a row's arrays -> its examples, branches, pictures, subtitles and supervised answers
    player_data.py       what the page's player shows of an example: pictures, points and tracks, subtitles
    token_stream.py      a row's tokens as short lists
    mask_picture.py      a row's attention mask as a PNG
    thumbnails.py        crops as WebP data URIs
    branch_gradients.py  a check by gradient that no branch attends to another
    answers.py           generated answers next to annotated ones
    bundle.py            the modules of static/ as one script
"""
