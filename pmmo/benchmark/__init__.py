"""The cost of a training step and its lower bound: `make bench`, `python -m pmmo.benchmark`.

plan -> workers (one process per contender, interleaved) -> results -> goals -> tables.
"""
