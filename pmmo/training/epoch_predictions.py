"""Test probabilities that choose nothing: of each epoch, and with the other batch-norm statistics.

The table of protocols (`pmmo.analysis.protocols`) alone reads them. They are made from text and
image: no label is here by which anything could be chosen.
"""

import torch
from torch import Tensor

from pmmo.model.systems import System
from pmmo.training.evaluation import own_samples, predict

OTHER = {"evaluation_set": "running", "running": "evaluation_set"}  # batch-norm statistics


class EpochPredictions:
    """Those of one cycle, float32 on the CPU, for N test movies and G genres."""

    def __init__(self, system: System, text: Tensor, image: Tensor, seed: int) -> None:
        self.system, self.text, self.image, self.seed = system, text, image, seed
        self.epochs: list[Tensor] = []

    def probabilities(self, statistics: str) -> Tensor:
        """The row's own prediction (N, G) with these batch-norm statistics."""
        samples = own_samples(self.system)
        found, _ = predict(
            self.system,
            self.text,
            self.image,
            samples=samples,
            seed=self.seed,
            statistics=statistics,
        )
        return found.float().cpu()

    def add(self) -> None:
        """Take down the epoch that has just ended."""
        self.epochs.append(self.probabilities(self.system.settings.batch_norm_eval))

    def finish(self) -> dict[str, Tensor]:
        """test_epochs (epochs, N, G); test_other_statistics (N, G) of the parameters as they are.

        Without batch norm there are no other statistics.
        """
        found = {"test_epochs": torch.stack(self.epochs)}
        settings = self.system.settings
        if settings.batch_norm:
            other = self.probabilities(OTHER[settings.batch_norm_eval])
            found["test_other_statistics"] = other.contiguous()
        return found
