"""The rule for models that answer at random: what it refuses."""

import pytest

from uiat import UserError
from uiat.evaluation.engine.calls import CallRule


def test_more_than_half_of_the_calls_by_default():
    assert [CallRule(calls=calls).least for calls in (1, 2, 3, 20)] == [1, 2, 2, 11]
    assert [CallRule(calls=calls).repeats for calls in (1, 2)] == [False, True]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("calls", "wrong", "says"),
    [
        (5, 6, "6 wrong calls cannot be among 5"),
        (0, 1, "calls must be at least 1"),
        (5, 0, "wrong must be at least 1"),
        (2_000, 1, "calls must be at most 1000"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(calls, wrong, says):
    with pytest.raises(UserError, match=says):
        CallRule(calls=calls, wrong=wrong)
