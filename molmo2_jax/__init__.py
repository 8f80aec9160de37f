"""Training Molmo2 (arXiv 2601.10611) on TPUs in JAX: models that see images and videos and point at what they mean.

Importing the package imports neither jax nor tensorflow, so that data workers and config readers stay light.
"""

__version__ = "0.1.0"
