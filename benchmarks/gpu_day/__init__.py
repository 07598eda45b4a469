"""One command, ten minutes, one GPU: are the kernels right there, and how fast are they.

    make gpu-day                                       or, what it calls:
    python -m benchmarks.gpu_day --out out/gpu_day     everything, docs/gpu.md included
    python -m benchmarks.gpu_day --tiny --device cpu   a rehearsal in Triton's interpreter; no figure of it is a measurement

For a bare machine with an H100 or H200, CUDA, torch 2.11, Triton 3.6 and Python 3.12, and no network. `make gpu-day-files` puts what
else is needed (a few wheels, the base model) into one folder beforehand, on a machine that has a network.

Sections run in the order of importance, each in at most its own seconds (`sections.SECTIONS`). Python of the sections runs in a
process of its own: one that a kernel has broken is replaced, and the sections that are left go on. Every row is on disk when it is
found. The exit code is 1 if anything that must hold did not.
"""
