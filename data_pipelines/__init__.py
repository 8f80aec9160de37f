"""From published data to packed rows: everything before the model, without jax.

The packages in the order data flows; each imports only from those above it (`errors.py` and `config.py` come first):

    text/        tokenizer and chat turns; points and tracks written and parsed as text
    media/       videos and images: where they are, their frames and their crops
    records/     annotations: their types and styles, read from JSON and written to JSON
    prompts/     the wording of a message: the user's text and the answer
    sequence/    one example as tokens: visual tokens, message tree, token weights
    packing/     which examples share a row, and the arrays of the row
    loading/     datasets, mixture, streams and decoding workers: the iterator over batches
    datasets/    prepared datasets built from published ones (`python -m data_pipelines`)

Start with `sequence/example.py` (a record becomes an example) and `loading/data.py` (a config becomes batches).
"""
