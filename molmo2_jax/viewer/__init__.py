"""The page of `molmo2 inspect`: packed rows, drawn from their arrays alone, in one self-contained HTML file.

Start with page.py: `render_page` reads rows and gives the page as text.

    row_reader.py  token_stream.py  player_data.py   a row's arrays -> examples, tokens, what the player shows
    mask_picture.py  thumbnails.py                   its attention mask as a PNG, its crops as WebP
    branch_gradients.py                              a check by gradient that no branch attends to another
    answers.py  bundle.py                            generated answers; the modules of static/ as one script
"""
