"""Intervals for fractions and means, against other code."""

import pytest
from scipy import stats

from uiat.intervals import binomial_tail, least_probability, mean_interval, student_quantile, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 3), (476, 1000), (9_999, 10_000)])
def test_intervals_are_those_of_scipy(k, n):
    low, high = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx([low, high], abs=1e-9)
    assert 0 <= wilson(k, n)[0] <= k / n <= wilson(k, n)[1] <= 1


def test_the_interval_of_nothing_is_everything():
    assert wilson(0, 0) == [0, 1]


def test_bounds_are_those_of_scipy():
    for successes, n in ((1, 1), (1, 20), (11, 20), (18, 20), (20, 20), (150, 200), (990, 1_000), (99_000, 100_000)):
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
