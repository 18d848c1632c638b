"""What a training step costs, against what it could cost: `make bench`, `python -m pmmo.benchmark`.

plan -> workers (one process per contender, interleaved) -> results -> goals -> tables.
"""
