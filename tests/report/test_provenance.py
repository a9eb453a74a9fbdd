"""Settings that differ, and with what runs were made."""

from support.run_folders import groups_of, make_samples, pages, write_run
from uiat.report.provenance import describe_differences


def test_settings_of_one_method_are_no_difference(tmp_path):
    inverse = {"name": "uiat", "gamma": 0.9, "inverse": {"epoch": None}}
    objectives = [{"name": "pgd-at"}, inverse, inverse | {"inverse": {"epoch": 2}}]
    made = [write_run(tmp_path / str(i), name=str(i), objective=o) for i, o in enumerate(objectives)]
    rows, partly = describe_differences(groups_of(made))
    assert rows == [["objective.name", "pgd-at", "uiat", "uiat"], ["objective.inverse.epoch", "–", "none", "2"]]
    assert partly == ["objective.gamma = 0.9"]


def test_the_page_says_whether_models_were_run(runs, tmp_path):
    for known, said in ((None, "no model was run"), (make_samples(runs[2]), "their models answered on test images")):
        for text in pages(runs, tmp_path / "report.html", samples=known):
            assert said in text
