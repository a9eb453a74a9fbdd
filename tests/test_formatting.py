"""Text for numbers and threat models: written in one way, and stored so that it reads back."""

import numpy as np
import pytest

from uiat.formatting import (
    class_spread,
    exact_255ths,
    in_255ths,
    percent,
    plus_minus,
    radius_text,
    spread,
    strength_text,
    threat_option,
    threat_record,
    threat_text,
    whole_255ths,
)
from uiat.threat import L1, L2, Linf, parse


def test_a_fraction_of_255_is_found_again_exact_or_rounded():
    for n in range(1, 255):
        assert exact_255ths(n / 255) == f"{n}/255"
        assert whole_255ths(float(f"{n / 255:.7g}")) == n
        text = threat_text(threat_record(Linf(n / 255)))
        assert text == (f"Linf {n}/255" if n % 51 else f"Linf {n / 255:.1f}")  # 51/255 is 0.2, and reads better so
        assert text == threat_text(Linf(n / 255)) == threat_text(Linf(f"{n}/255"))


@pytest.mark.parametrize("value", [0.0314, 0.1, 0.003, 1e-9])
def test_other_radii_stay_numbers(value):
    assert exact_255ths(value) == value
    assert not in_255ths("Linf", value)
    assert radius_text("Linf", value) == f"{value:.4g}"


def test_other_norms_are_no_fractions():
    assert threat_text(L2(128 / 255)) == "L2 0.502"
    assert threat_text(L1(12)) == "L1 12"
    assert threat_option(L2(0.5)) == "L2:0.5"


@pytest.mark.parametrize("text", ["clean", "Linf", "Linf:x", "Linf:9", "L3:0.1", ""])
def test_what_is_no_threat_model_is_left_as_it_is(text):
    assert threat_text(text) == text


@pytest.mark.parametrize("threat", [Linf(8 / 255), Linf(0.1), L2(1 / 3), L1(12.5)])
def test_a_threat_model_is_read_back_from_what_is_stored(threat):
    assert parse(threat_record(threat, exact=True)) == threat
    assert float(parse(threat_record(threat)).epsilon) == pytest.approx(float(threat.epsilon), rel=1e-6)
    assert float(parse(threat_option(threat)).epsilon) == pytest.approx(float(threat.epsilon), rel=1e-6)


def test_percentages_and_spreads():
    assert (percent(1.0), percent(0.12345, digits=0), percent(None)) == ("100.00 %", "12 %", "-")
    assert (spread([]), spread([1.0]), spread([0.48, 0.49])) == ("–", "100.0", "48.5 ± 0.7")
    assert plus_minus(0.4567, 0.0123, digits=2) == "45.67 ± 1.23"
    assert strength_text(0.0, pixels=True) == "0"


def test_class_spread_is_the_formulas():
    rates = [0.25, 0.5, None, 1.0, 0.25]
    known = np.array([0.25, 0.5, 1.0, 0.25])
    found = class_spread(rates)
    assert found == {"worst": 0.25, "worst_class": 0, "gap": 0.75, "std": pytest.approx(known.std())}
    assert class_spread([None, None]) == {}
