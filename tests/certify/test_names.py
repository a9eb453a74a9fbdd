"""Names of certifications, and what is wrong with others in one line."""

import pytest

from uiat import UserError
from uiat.certify.names import parse_certifications
from uiat.certify.smoothing import Smoothing


def test_a_name_says_the_noise_and_how_often_it_is_drawn():
    names = ["certify-smoothing-0.25", "smoothing-1e-3", "smoothing-0.5-100", "bounds"]
    assert list(parse_certifications(names).values()) == [
        Smoothing(sigma=0.25),
        Smoothing(sigma=0.001),
        Smoothing(sigma=0.5, n=100),
        None,
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smoothing-0", "certify-smoothing-0: sigma must be above 0, but is 0"),
        ("smoothing--1", "certify-smoothing--1: sigma must not be negative, but is -1"),
        ("smoothing-much", "certify-smoothing-much: sigma must be a number"),
        ("smoothing-0.25-5", "certify-smoothing-0.25-5: n 5 certifies nothing at alpha 0.001"),
        ("smoothing", "unknown certification 'smoothing'; did you mean 'smoothing-SIGMA'"),
        ("bound", "did you mean 'bounds'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(name, says):
    with pytest.raises(UserError) as caught:
        parse_certifications([name])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
