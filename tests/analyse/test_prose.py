"""Numbers in prose."""

import pytest

from uiat.analyse.prose import accuracy_gap, difference_with_error, join_words


@pytest.mark.parametrize(
    ("difference", "error", "chance"), [(0.02, 0.01, False), (0.0195, 0.01, True), (0.01, 0, False)]
)
def test_a_difference_says_whether_chance_may_explain_it(difference, error, chance):
    assert ("which may be chance" in difference_with_error(difference, error)) is chance


def test_words_and_gaps():
    assert [join_words(words) for words in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]
    assert accuracy_gap(0.5, 0.5, 100) == "+0.0 ± 7.1 points, which may be chance"
