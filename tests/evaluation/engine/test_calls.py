"""The rule for models that answer at random: what it refuses, and its bounds against other code."""

import pytest
from scipy import stats

from uiat import UserError
from uiat.evaluation.engine.calls import CallRule, binomial_tail, least_probability, mean_interval, student_quantile


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


def test_bounds_are_those_of_scipy():
    for successes, n in ((1, 1), (1, 20), (11, 20), (18, 20), (20, 20), (150, 200)):
        assert binomial_tail(successes, n, 0.3) == pytest.approx(
            stats.binom.sf(successes - 1, n, 0.3), rel=1e-9, abs=1e-300
        )
        bound = stats.beta.ppf(0.01, successes, n - successes + 1)
        assert least_probability(successes, n, error=0.01) == pytest.approx(bound, rel=1e-9)
    assert least_probability(0, 20) == 0
    for degrees in (1, 2, 3, 4, 19, 100, 999):
        assert student_quantile(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def test_the_interval_of_a_mean():
    values = [0.5, 0.55, 0.6, 0.5]
    theirs = stats.t.interval(0.95, 3, loc=0.5375, scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(theirs)
    assert mean_interval([0.25, 0.25]) == [0.25, 0.25]
