"""PM+MO: multimodal movie-genre classification with two objectives (Armitage et al. 2020)."""
