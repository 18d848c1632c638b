"""What a finished row's dev movies say of its models: thresholds, temperatures, and the choice."""

from collections.abc import Sequence

import numpy as np
import torch

from pmmo.config.settings import Settings
from pmmo.decisions.stored import Decision, Fitted, mean_of
from pmmo.decisions.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, nll
from pmmo.decisions.thresholds import tune
from pmmo.training.evaluation import scores, statistics_of
from pmmo.training.loop import Cycle


def kept(settings: Settings, cycles: Sequence[Cycle], best: Cycle) -> list[Cycle]:
    """The cycles whose models stay, in order."""
    return list(cycles) if settings.keep_models == "all" else [best]


def decide_on_dev(
    settings: Settings, cycles: Sequence[Cycle], best: Cycle, truth: np.ndarray
) -> Decision:
    """The decision of the models of `cycles`, `truth` (N, G) being the labels of dev.

    The choice has the highest weighted F1 on dev, where thresholds are cross-fitted; of equals, the
    simpler one. Probabilities are calibrated if that lowers the cross-fitted NLL, unless the
    temperature is at a bound: few movies of dev that are all right would have none cold enough.
    A run that was trained on dev, too, chooses none of this by it.
    """
    fitted: dict[str, dict[str, Fitted]] = {}
    for statistics, suffix in statistics_of(settings).items():
        dev = {"single": best.predictions[f"dev{suffix}"].numpy()}
        if len(cycles) > 1:
            parts = [cycle.predictions[f"dev{suffix}"].numpy() for cycle in cycles]
            dev["ensemble"] = mean_of(np.stack(parts))
        fitted[statistics] = {name: fit(truth, p, settings.threshold) for name, p in dev.items()}
    running = fitted["running"]
    options = {
        (name, thresholds): own.f1_thresholds if thresholds else own.f1
        for name, own in running.items()
        for thresholds in (False, True)
    }
    known = settings.train_on == "train+dev"  # movies that were trained on choose nothing
    name, thresholds = ("single", False) if known else max(options, key=lambda key: options[key])
    return Decision(
        best=best.summary["cycle"],
        cycles=tuple(cycle.summary["cycle"] for cycle in cycles),
        ensemble=name == "ensemble",
        thresholds=thresholds,
        calibrated=not known
        and running[name].nll_calibrated < running[name].nll
        and LOWEST < running[name].temperature < HIGHEST,
        fitted=fitted,
    )


def fit(truth: np.ndarray, probabilities: np.ndarray, threshold: float) -> Fitted:
    """Everything of one predictor, from its (N, G) probabilities on dev."""
    thresholds, guesses = tune(truth, probabilities, threshold)
    found, true = torch.from_numpy(probabilities), torch.from_numpy(truth)
    return Fitted(
        thresholds=tuple(thresholds.tolist()),
        temperature=fit_temperature(truth, probabilities),
        f1=scores(found, true, threshold)["weighted"],
        f1_thresholds=scores(torch.from_numpy(guesses).float(), true, 0.5)["weighted"],
        nll=nll(truth, probabilities),
        nll_calibrated=nll(truth, cross_fitted(truth, probabilities)),
    )
