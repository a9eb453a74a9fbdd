"""Files of a study."""

import json
from dataclasses import replace

import pytest

from uiat.analyse.result import Result, compact, write
from uiat.analyse.runner import STUDIES


def test_numbers_in_a_list_stay_on_one_line():
    value = {"a": [0.5, None, "x, y"], "b": [[1, 2], [3, 4]], "c": {"d": []}}
    assert json.loads(compact(value)) == value
    assert '"a": [0.5, null, "x, y"]' in compact(value)


@pytest.mark.parametrize(
    "error", [ValueError("no finite value"), MemoryError(), KeyError("x"), ImportError("no backend")]
)
def test_a_figure_that_fails_costs_the_figure_and_never_the_numbers(tmp_path, caplog, error):
    def draw(data):
        raise error

    study = replace(STUDIES["strength"], draw=draw)
    paths = write(tmp_path, study, Result("strength", {"a": 1}, "They do not cross."))
    assert (
        [path.name for path in paths] == ["strength.json", "strength.md"] == sorted(p.name for p in tmp_path.iterdir())
    )
    assert "strength.svg" not in (tmp_path / "strength.md").read_text()
    assert f"no figure of strength: {type(error).__name__}" in caplog.text


def test_a_dollar_or_a_control_character_in_a_name_is_drawn_as_text(tmp_path, caplog):
    from uiat.analyse.figures import make_panels

    def draw(data):
        figure, (axes,) = make_panels(1.0)
        axes.set_title(data["name"])
        return figure

    study = replace(STUDIES["strength"], draw=draw)
    write(tmp_path, study, Result("strength", {"name": "$\\frac{$ \x1b[2J <b> --> "}, "."))
    assert caplog.text == ""
    svg = (tmp_path / "strength.svg").read_text()
    assert "\x1b" not in svg
    assert "<b>" not in svg
