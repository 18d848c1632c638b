"""One thread, as in the training stage, which forks its cycles: a forked thread pool hangs."""

import torch

torch.set_num_threads(1)
