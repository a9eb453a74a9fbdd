"""Tables for papers: the numbers, what is bold, and that TeX, Markdown and spreadsheets obey no name of a run."""

import csv
import io
import logging
import re

import pytest

from support.run_folders import ACCURACY, groups_of, write_run
from uiat.report import make_table
from uiat.report.tables import make_rows

OTHER = {"name": "other", "objective": {"name": "trades", "beta": 6}}
NASTY = r"a_b & 50 % $x$ #1 \input{/etc/passwd} ~^ |c| <i> `d`"


def test_a_latex_table_has_means_deviations_and_what_they_are_of(runs):
    text = make_table(runs, "latex")
    assert (
        r"pgd-at & \textbf{82.00 $\pm$ 0.00} & \textbf{48.00 $\pm$ 0.71} & \textbf{48.00 $\pm$ 0.71} & 0, 1 \\" in text
    )
    assert r"uiat & \textbf{82.00} & \textbf{48.50} & \textbf{48.50} & 0 \\" in text
    assert r"run & clean & autoattack & worst & seeds \\" in text
    assert r"\begin{tabular}{lrrrl}" in text
    caption = re.search(r"\\caption\{(.*)\}", text)[1]
    assert r"on 10,000 test images of cifar10, threat model $\ell_\infty$, $\epsilon = 8/255$" in caption
    assert "mean and standard deviation over the seeds of each row" in caption
    assert "standard error of a fraction of n images" in caption


def test_markdown_has_the_same_numbers_and_csv_has_them_apart(runs):
    text = make_table(runs, "markdown")
    assert "| run | clean | autoattack | worst | seeds |\n|---|---:|---:|---:|---|" in text
    assert "**48.00 ± 0.71**" in text
    assert text.startswith("Accuracy in percent on 10,000 test images of cifar10, threat model Linf 8/255;")
    rows = list(csv.DictReader(io.StringIO(make_table(runs, "csv"))))
    assert [(row["clean"], row["autoattack"], row["autoattack std"]) for row in rows] == [
        ("82.0000", "48.0000", "0.7071"),
        ("82.0000", "48.5000", ""),
    ]
    assert (rows[0]["seeds"], rows[0]["n"], rows[0]["self-checks"]) == ("0, 1", "10,000", "credible")


@pytest.mark.parametrize(
    ("second", "bold"),
    [
        ({"accuracy": ACCURACY | {"worst": 0.479}}, [True, True]),  # 0.6 points: within sqrt(0.5^2 + 0.5^2) = 0.71
        ({"accuracy": ACCURACY | {"worst": 0.477}}, [True, False]),  # 0.8 points
        ({"accuracy": ACCURACY, "n": 1000}, [False, False]),  # other images: nothing to be better than
        ({"accuracy": ACCURACY, "threat": "Linf:0.0157"}, [False, False]),
        ({"accuracy": dict.fromkeys(ACCURACY, 0.9), "verdict": "do not believe this number: why"}, [False, False]),
    ],
)
def test_bold_is_the_best_within_its_error_among_rows_that_compare(tmp_path, second, bold):
    folders = [write_run(tmp_path / "a", accuracy=ACCURACY), write_run(tmp_path / "b", **OTHER, **second)]
    assert [row.scores["worst"].is_best for row in make_rows(groups_of(folders))] == bold


def test_names_from_files_are_text_in_every_form(tmp_path):
    accuracy = ACCURACY | {"own_attack & %": 0.5}
    folders = [
        write_run(tmp_path / "a", name=NASTY, accuracy=accuracy),
        write_run(tmp_path / "b", **(OTHER | {"name": "=cmd()"})),
    ]
    latex = make_table(folders, "latex")
    escaped = r"a\_b \& 50 \% \$x\$ \#1 \textbackslash{}input\{/etc/passwd\} \textasciitilde{}\textasciicircum{}"
    assert escaped in latex
    assert r"own\_attack \& \%" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {6}  # clean, two attacks, worst, n, threat
    assert re.sub(r"\\[{}]", "", latex).count("{") == re.sub(r"\\[{}]", "", latex).count("}")
    assert r"\|c\| &lt;i> \`d\`" in make_table(folders, "markdown")
    assert [row["run"] for row in csv.DictReader(io.StringIO(make_table(folders, "csv")))] == [NASTY, "'=cmd()"]


def test_rows_that_do_not_compare_or_are_doubtful_say_so(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="uiat")
    doubtful = {"accuracy": ACCURACY, "threat": "L2:0.5", "verdict": "do not believe this number: why"}
    folders = [write_run(tmp_path / "a", accuracy=ACCURACY), write_run(tmp_path / "b", **OTHER, **doubtful)]
    text = make_table([*folders, write_run(tmp_path / "c", **(OTHER | {"name": "third"}))], "latex")
    assert r"other$^\dagger$ & 82.00 & 48.50 & 48.50 & 10,000 & $\ell_2$, $\epsilon = 0.5$ \\" in text
    assert r"third & -- & -- & --" in text
    assert r"$^\dagger$: the self-checks of the evaluation speak against this number" in text
    assert "threat model" not in re.search(r"\\caption\{(.*)\}", text)[1]
    assert "evaluated on different threat models" in caplog.text
    assert "Not evaluated" in caplog.text
