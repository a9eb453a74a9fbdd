"""The table of all runs, and what a reader has to know about its numbers."""

from support.run_folders import ACCURACY, groups_of, pages, write_run
from uiat.report.summary import find_warnings, verdicts


def test_what_several_runs_are_told_is_told_once(tmp_path):
    said = ["nothing speaks against the number", "do not believe it: gradients are zero"]
    texts = {"a": said[0], "b": said[1], "c": said[0]}
    made = [
        write_run(tmp_path / name, name=name, objective={"name": name}, accuracy=ACCURACY, verdict=text)
        for name, text in texts.items()
    ]
    assert verdicts(groups_of(made)) == [("a, c", said[0]), ("b", said[1])]


def test_what_all_runs_share_is_said_once(tmp_path):
    names = ("cifar10-small-pgd-at", "cifar10-small-pgd-at-awp", "cifar10-small-uiat")
    methods = ("pgd-at", "pgd-at", "uiat")
    made = [
        write_run(tmp_path / name, name=name, objective={"name": method}, accuracy=ACCURACY, optimisation={"awp": i})
        for i, (name, method) in enumerate(zip(names, methods, strict=True))
    ]
    html, text = pages(made, tmp_path / "report.html")
    table = text[text.index("## Summary") : text.index("All runs:")]
    assert [line.split(" | ")[0] for line in table.splitlines()[4:7]] == ["| pgd-at", "| pgd-at-awp", "| uiat"]
    assert "threat model" not in table
    assert "All runs: n 10,000, seeds 0, data cifar10, threat model Linf 8/255." in text
    assert "The names of all runs begin with <code>cifar10-small-</code>" in html


def test_intervals_are_written_out(tmp_path):
    html, text = pages([write_run(tmp_path / "a", accuracy=ACCURACY)], tmp_path / "report.html")
    assert "82.00 [81.0–83.0]" in text
    assert '82.00<small class="range">81.0–83.0</small>' in html


def test_a_warning_names_the_run_and_what_it_lacks(tmp_path):
    full = ACCURACY | {"pgd-20": 0.5}
    made = [write_run(tmp_path / n, name=n, objective={"name": n}, accuracy=full) for n in "abcd"]
    made += [write_run(tmp_path / "e", name="e", threat="L2:0.5", accuracy=ACCURACY)]
    said = find_warnings(groups_of(made))
    threats = "The runs were evaluated on different threat models: L2 0.5 (e); Linf 8/255 (all others)."
    assert said[0].startswith(threats)
    assert said[1].startswith("Not evaluated under pgd-20: e.")


def test_runs_of_other_data_and_threats_are_compared_only_after_saying_so(tmp_path):
    made = [
        write_run(tmp_path / "a", name="a", accuracy=ACCURACY),
        write_run(tmp_path / "b", name="b", data="svhn", accuracy=ACCURACY),
        write_run(tmp_path / "c", name="c", threat="L2:0.5", accuracy=ACCURACY),
    ]
    html, text = pages(made, tmp_path / "report.html")
    for said in (
        "different data sets: cifar10 (a, c); svhn (b)",
        "different threat models: Linf 8/255 (a, b); L2 0.5 (c)",
    ):
        assert said in html.replace("&#39;", "'")
        assert said in text
    assert html.index("different data sets") < html.index("<table")


def test_a_run_without_evaluation_is_reported_and_said_so(tmp_path):
    html, text = pages([write_run(tmp_path / "a")], tmp_path / "report.html")
    assert "Not evaluated, and so without accuracy on test images" in html
    assert "not evaluated: there is no evaluation.json" in text
    assert 'id="h-training"' in html


def test_the_best_is_bold_on_the_page_and_the_worst_case_stands_beside_the_clean_accuracy(tmp_path):
    made = [
        write_run(
            tmp_path / str(worst),
            name=f"r{worst}",
            objective={"name": "x", "w": worst},
            accuracy={"clean": 0.8, "pgd": worst, "worst": worst},
        )
        for worst in (0.5, 0.497, 0.4)
    ]
    html, text = pages(made, tmp_path / "report.html")
    assert "| run | clean | worst | pgd |" in text
    assert [f"<b>{value}</b>" in html for value in ("50.00", "49.70", "40.00")] == [True, True, False]
    assert "**49.70** [" in text
    assert "within the error of it" in text
