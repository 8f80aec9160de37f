"""Answering prompts: a loaded model, its key-value cache, sampling, and text as it is generated.

Start with answer.py: `answer` and `stream` take a `LoadedModel` and a prompt (data_pipelines/sequence/example.py).
    load.py              a checkpoint or "hf:…" as a model on a mesh, with its tokenizer and settings
    decode.py            prefill, then one token at a time from the cache (kv_cache.py)
    sampling.py          temperature and top_p
    prompt_media.py      the images or the video of a prompt
    text_stream.py       text from tokens, never half a character
    grounded_answer.py   the points and tracks of an answer, in pixels
"""
