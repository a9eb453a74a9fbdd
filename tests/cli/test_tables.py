"""The tables that `uiat evaluate` ends in."""

import re

import pytest

from support.commands import result


def test_other_norms_and_corruptions(ask, run):
    words = ["--norms", "L2:0.5,L1:3", "--norms-attack", "pgd-2", "--corruptions", "fog,contrast"]
    code, out, err = ask("evaluate", run, "--attacks", "clean", "--n", 12, *words)
    assert (code, err) == (0, "")
    found = result(run)
    assert list(found["unseen"]["accuracy"]) == ["clean", "Linf:0.2", "L2:0.5", "L1:3", "union", "unseen"]
    assert list(found["corruptions"]["by_kind"]) == ["fog", "contrast"]
    assert re.search(r"L1 3 +\d", out)
    assert re.search(r"fog( +\d+\.\d\d %){6}", out)


@pytest.mark.parametrize(("threat", "pixels"), [("Linf:0.2", True), ("L2:0.5", False)])
def test_a_sweep_is_in_pixels_where_a_radius_is_one_of_pixels(ask, run, threat, pixels):
    words = ["--threat", threat, "--epsilons", "0,0.1", "--sweep-attack", "pgd-2"]
    code, out, err = ask("evaluate", run, "--attacks", "clean", "--n", 12, *words)
    assert (code, err) == (0, "")
    assert ("in pixels" in out) is ("25.5/255" in out) is pixels
    assert re.search(r"0\.1 +(25\.5/255 +)?\d+\.\d\d %", out)
