"""Charts take what measurements bring."""

from uiat.report.svg.charts import Series, curves


def test_values_that_are_not_finite_are_left_out():
    svg = curves("t", [Series("a", ((1, float("nan")), (2, 0.5)))], x="x", y="y")
    assert "nan" not in svg
    assert "a, x 2: 0.5" in svg
    assert "<svg" in curves("nothing", [], x="x", y="y", percent=True)
