"""Validated settings of a variant and of the engine."""
