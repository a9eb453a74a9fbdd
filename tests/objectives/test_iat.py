import pytest

import uiat
from uiat import IAT, UIAT, InstanceInverse, UserError


def test_iat_is_uiat_with_an_inverse_for_each_image():
    assert IAT(weight=2.0) == UIAT(inverse=InstanceInverse(), weight=2.0)
    inverse = InstanceInverse(radius="2/255", steps=3)
    assert IAT(inverse=inverse).inverse is inverse
    with pytest.raises(UserError, match="gamma"):
        IAT(gamma=2.0)


def test_the_names_of_the_papers():
    assert (uiat.MART, uiat.TRADES, uiat.sweep) == (uiat.Mart, uiat.Trades, uiat.radius_sweep)
