"""Ahead-of-time analysis: compiles the training step for a TPU slice without that slice, and reports its cost.

Start with analysis.py, which reads top to bottom: lower, compile, parse, time, report.

    topology.py       "v5p:4x4x4" -> devices to compile for, by the compiler in libtpu
    program.py        lowering a run's step and compiling it: HLO text, memory, compiler messages
    hlo.py            that text as computations, instructions, trip counts and stack frames
    schedule.py       the time of every instruction, with overlap, from chips.py, collectives.py, flop_count.py,
                      kernel_cost.py (Pallas kernels) and workload.py (the rows that a step is assumed to process)
    model_parts.py    the part of the model that an instruction belongs to, by named scopes
    report.py         the result as JSON; report_table.py as text and Markdown
    sweep.py          the fastest mesh, remat policies and microbatches that fit
"""
