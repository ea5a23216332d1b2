"""DuraQ beside its floors and peers, interleaved on one file system: ``python -m benchmarks``.

A peer is a class in ``peers`` and a line of its registry, a workload a function and an entry of
``workloads``, a budget a line of ``budgets``. Whatever is printed was measured in that run; ``guard``
compares its ratios with those of ``baseline.json``. README.md says how to read it.
"""
