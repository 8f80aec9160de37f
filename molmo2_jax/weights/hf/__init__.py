"""The Hugging Face format: directories of safetensors, config.json, tokenizer and processor, read and written.

Start with tensor_rules.py: one reversible line for each kind of tensor says which parameter it is. config.py translates
config.json, tensor_files.py reads and writes safetensors, and source.py joins the three into a `ParameterSource`.

    fetch.py         a folder, a URL or a hub name as a local folder
    processor.py     tokenizer, chat template, and how images and videos become tokens
    export_code.py   the code in remote/ that an export takes along for vLLM
    gguf.py          GGUF files of Llama-style models as Hugging Face directories
"""
