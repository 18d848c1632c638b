"""Whether a row had stopped improving when its epochs ended: the rule, by hand and under noise."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pmmo.analysis.budget import budget, rise, rising


def run(*curves) -> SimpleNamespace:
    """A run with these dev curves, one per cycle."""
    table = pd.concat(
        pd.DataFrame({"cycle": c, "epoch": np.arange(1, len(dev) + 1), "dev_weighted": dev})
        for c, dev in enumerate(curves)
    )
    cycles = [SimpleNamespace(best_epoch=int(np.argmax(dev)) + 1) for dev in curves]
    return SimpleNamespace(curves=table, cycles=cycles)


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ([[0.1, 0.2, 0.3]], 0.1),
        ([[0.1, 0.3, 0.2]], -0.1),
        ([[0.1, 0.2, 0.3], [0.1, 0.3, 0.2]], 0.0),  # mean over cycles
        ([[0.1, 0.2, 0.4, 0.3]], 0.2),  # the last third of four epochs: two
        ([[0.1, 0.5]], 0.4),
    ],
)
def test_the_rise_is_the_best_of_the_last_third_minus_the_best_before(curves, expected):
    assert rise(run(*curves)) == pytest.approx(expected)


def test_a_row_is_said_to_have_stopped_at_the_margin_and_not_above():
    runs = {"at": run([0.0, 0.25, 0.5]), "above": run([0.0, 0.25, 0.75])}
    facts = budget(runs, 0.25)
    assert [facts["rows"][name]["stopped"] for name in runs] == [True, False]
    assert rising(facts) == ["above"]
    assert facts["rows"]["at"]["best_epochs"] == [3]
    assert facts["rows"]["at"]["epochs"] == 3


def test_one_epoch_has_no_rise_and_is_not_said_to_have_stopped():
    facts = budget({"gmu": run([0.5])}, 0.01)
    assert np.isnan(facts["rows"]["gmu"]["rise"])
    assert rising(facts) == ["gmu"]


def test_noise_alone_is_no_rise_and_a_slow_rise_is_one():
    rng = np.random.default_rng(0)
    flat = [run(*(0.5 + rng.normal(0, 0.01, (5, 20)))) for _ in range(50)]
    slow = [run(*(np.linspace(0.4, 0.5, 20) + rng.normal(0, 0.01, (5, 20)))) for _ in range(50)]
    assert np.mean([rise(one) > 0.01 for one in flat]) < 0.02
    assert np.mean([rise(one) > 0.01 for one in slow]) > 0.98
