"""PM+MO: multimodal movie-genre classification with two objectives (Armitage et al. 2020)."""

__version__ = "0.1.0"  # of the last release; CITATION.cff and CHANGELOG.md name it
