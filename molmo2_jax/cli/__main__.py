"""`python -m molmo2_jax.cli` runs the `molmo2` command."""

from molmo2_jax.cli.main import main

main()
