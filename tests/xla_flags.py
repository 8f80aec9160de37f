"""Compiler flags for tests, where compiling takes most of the time.

Without LLVM's optimisations compiling takes half the time, and without XLA's fusion emitters half of the rest.
"""

FAST_COMPILING = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
FEW_OPTIMISATIONS = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"  # from four steps or so on
