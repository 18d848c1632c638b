"""`python -m pmmo`: the command params, and what all commands share."""

import sys
from pathlib import Path

import pytest

from pmmo import __main__
from pmmo.__main__ import main, show_params
from pmmo.core.errors import PmmoError


def line(text: str, key: str) -> list[str]:
    return next(row.split() for row in text.splitlines() if row.split()[0] == key)


def test_a_setting_is_shown_with_the_key_it_comes_from():
    text = show_params("pmmo-v2-l2")
    assert line(text, "elbo") == ["elbo", "v2", "variants.pmmo-v2-l2.elbo"]
    assert line(text, "kl_weight")[-1] == "systems.pmmo.kl_weight"
    assert line(text, "width")[-1] == "scales.demo.widths.wide"
    assert line(text, "batch_norm")[1] == "true"


def test_settings_that_a_system_has_not_got_are_not_shown():
    assert "elbo" not in show_params("gmu")


def test_the_sizes_of_the_other_scale_are_shown_without_changing_the_file(monkeypatch, capsys):
    before = Path("params.yaml").read_bytes()
    monkeypatch.setattr(sys, "argv", ["pmmo", "params", "gmu", "--scale", "paper"])
    main()
    text = capsys.readouterr().out
    width = ["width", "512", "variants.gmu.width", "->", "scales.paper.widths.base"]
    assert line(text, "width") == width
    assert line(show_params("gmu"), "width")[-1] == "scales.demo.widths.base"
    assert Path("params.yaml").read_bytes() == before


def test_an_unknown_row_is_refused_with_the_rows_there_are():
    with pytest.raises(PmmoError, match=r"no row 'gnu'.*gmu"):
        show_params("gnu")


def test_the_command_shows_the_system_under_study(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pmmo", "params"])
    main()
    assert "System under study" in capsys.readouterr().out


def test_an_error_names_its_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pmmo", "params", "gnu"])
    with pytest.raises(SystemExit, match=r"^params: there is no row 'gnu'"):
        main()


def test_an_interrupted_command_says_so(monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "show_params", interrupted)
    monkeypatch.setattr(sys, "argv", ["pmmo", "params"])
    with pytest.raises(SystemExit, match=r"^params: interrupted; nothing was written"):
        main()


def test_an_environment_without_pyarrow_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(__main__, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["pmmo", "import", "t.csv", "own.hdf5"])
    with pytest.raises(SystemExit, match=r"pyarrow, which is missing: pip install -r require"):
        main()


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", ""])
def test_a_batch_size_is_a_whole_number_from_1_up(monkeypatch, capsys, number):
    monkeypatch.setattr(sys, "argv", ["pmmo", "predict", "a", "b", "--batch-size", number])
    with pytest.raises(SystemExit):
        main()
    assert "whole number from 1 up" in capsys.readouterr().err


def test_a_number_has_an_upper_bound(monkeypatch, capsys):
    for option in ("--samples", "--batch-size"):
        monkeypatch.setattr(sys, "argv", ["pmmo", "predict", "a", "b", option, "9" * 12])
        with pytest.raises(SystemExit):
            main()
        assert "999999999999 is too large" in capsys.readouterr().err
