"""Where a model's parameters come from and where they go: Orbax checkpoints, Hugging Face directories, random draws.

Start with source.py. A `ParameterSource` names its parameters and reads one layer at a time, and `load_sharded` puts
them into the shards of a mesh. The sources are orbax_files.py (`ParamFiles`) and hf/source.py (`HfSource`).

    init_from.py          what a training run starts from, one source for each group of parameters
    checkpoint_files.py   the folders of a checkpoint, and restoring all of its parameters
    convert.py            Hugging Face directory <-> Orbax checkpoint, tensor by tensor
"""
