"""The extracted tensors: written by `extract`, read by training."""
