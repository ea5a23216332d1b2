"""DuraQ beside its floors and peers, interleaved on one file system: ``python -m benchmarks``.

A peer is one class (``peers``), a workload one function and a line of the table (``workloads``), a budget
one line (``report``). Whatever is printed was measured in that run.
"""
