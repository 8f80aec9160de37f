"""Ahead-of-time analysis: compiles the training step for a TPU slice without that slice, and reports its cost.

Start with analysis.py: lower, compile, parse, time, report.

    topology.py  program.py     the devices to compile for; a run's step, lowered and compiled for them
    hlo.py  schedule.py         the compiled text as instructions; their times, with overlap, from chips.py,
                                collectives.py, flop_count.py, kernel_cost.py (Pallas) and workload.py (the rows)
    model_parts.py  report*.py  the part of the model that an instruction belongs to; the result as JSON and tables
    sweep.py                    the fastest mesh, remat policies and microbatches that fit
"""
