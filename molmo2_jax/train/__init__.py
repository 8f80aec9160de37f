"""Training: one loop for all stages, from a config to checkpoints and metrics.

Start with loop.py, which reads top to bottom. setup.py turns a config (config.py) into a mesh, an optimizer
(optimizer.py, parameter_groups.py) and a compiled step (step.py). checkpoint.py saves and restores the state,
distributed.py starts and stops several processes, and step_log.py, throughput.py, flops.py and metrics.py report.
"""
