"""Small multiples."""

from uiat.report.svg.charts import Series
from uiat.report.svg.panels import frame, panel


def test_a_panel_has_its_last_values_and_leaves_out_what_is_not_finite():
    one = Series("robust", ((1, 0.2), (2, float("nan")), (3, 0.4)))
    other = Series("robust", ((1, 0.9), (3, 0.1)))
    plane = frame([one, other], percent=True)
    svg = panel("uiat", [one], [other], plane)
    assert "nan" not in svg
    assert svg.count('class="behind"') == 1
    assert ">40.0</text>" in svg
    assert 'aria-label="uiat. robust ends at 40.0 %"' in svg
    assert (plane.x0, plane.x1, plane.ys[0], plane.ys[-1]) == (1, 3, 0.0, 1.0)
