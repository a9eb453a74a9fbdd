"""A method has one look on every page, in reports and in the figures of studies."""

import colorsys
import re
from pathlib import Path

import uiat.report
from support.run_folders import groups_of, write_run
from uiat.analyse.figures import COLOURS, style_runs
from uiat.objectives import METHOD_NAMES
from uiat.report.svg.charts import swatch
from uiat.runs.methods import MARKERS, assign_slots, slot_of

CSS = (Path(uiat.report.__file__).parent / "templates" / "style.css").read_text()


def test_no_two_methods_have_one_look_and_none_depends_on_its_neighbours():
    assert len({slot_of(name) for name in METHOD_NAMES}) == len(METHOD_NAMES)
    for page in (list(METHOD_NAMES), ["mine", "trades", "uiat"], ["uiat", "mine", "pgd-at", "uiat", "trades"]):
        slots = dict(zip(reversed(page), reversed(assign_slots(page)), strict=True))
        assert all(slots[name] == slot_of(name) for name in page if name != "mine")


def test_rows_of_one_method_are_told_apart():
    slots = assign_slots(["uiat"] * 5 + ["pgd-at"])
    assert slots[-1] == slot_of("pgd-at")
    assert [slot % 8 for slot in slots[:4]] == [0] * 4
    assert len(set(assign_slots(["uiat"] * 40))) == 40


def test_a_report_and_a_figure_show_a_method_alike(tmp_path):
    alone = groups_of([write_run(tmp_path / "u", name="u", objective={"name": "uiat"})])
    both = groups_of(
        [write_run(tmp_path / name, name=name, objective={"name": name}) for name in ("trades", "pgd-at", "uiat")]
    )
    assert both[2].slot == alone[0].slot == 0
    assert swatch(both[2].slot) == swatch(alone[0].slot) != swatch(both[1].slot)
    drawn = style_runs({"methods": {"a": "trades", "b": "uiat"}}, ["a", "b"])
    assert [(style["color"], style["marker"]) for style in drawn] == [
        (COLOURS[slot], MARKERS[slot]) for slot in (both[0].slot, both[2].slot)
    ]


def test_the_colours_of_reports_have_the_hues_of_those_of_figures():
    for palette in (":root {", "@media screen and (prefers-color-scheme: dark)"):
        shown = dict(re.findall(r"--s(\d): (#\w{6});", CSS[CSS.index(palette) :][:900]))
        for slot, colour in enumerate(COLOURS):
            (ours, _, grey), (theirs, _, drawn) = (_hls(shown[str(slot)]), _hls(colour))
            apart = abs(ours - theirs) % 1
            assert max(grey, drawn) < 0.3 or min(apart, 1 - apart) < 0.1, (palette, slot)


def _hls(colour):
    return colorsys.rgb_to_hls(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))
