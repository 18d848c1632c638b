"""Commands of `python -m pmmo` that run or watch the pipeline."""
