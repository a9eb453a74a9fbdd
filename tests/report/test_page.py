"""`uiat report`: synthetic run folders in, pages out; and the page in a real browser, where one is installed."""

import json
import re
import shutil
import subprocess
import zlib
from html import escape
from pathlib import Path

import pytest
import torch
import yaml

import uiat
from support import tiny
from uiat import recipes
from uiat.cli import main
from uiat.config.yaml_io import to_dict
from uiat.formatting import threat_text
from uiat.report import Sample, Samples, check_out, read_all, read_files, write_report
from uiat.report.content import describe_differences, find_warnings, verdicts
from uiat.report.groups import group_runs, spread
from uiat.report.images import magnified, png
from uiat.report.published import PUBLISHED, as_published, compare, published_method
from uiat.report.svg.axes import apart, around, ticks
from uiat.report.svg.charts import Series, curves
from uiat.report.training_curves import training
from uiat.runs.reader import RunFiles
from uiat.system.atomic_files import write_json, write_tensors

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What Chromium itself asks for when it starts, whatever the page; what the page asks for is asked of the page too.
ITS_OWN = re.compile(r"https?://[\w.-]*\.(?:google|googleapis|gstatic|gvt1)\.com/")


def folder(
    path,
    *,
    name="cifar10-resnet18-pgd-at",
    seed=0,
    objective=None,
    data="cifar10",
    threat="Linf:0.03137255",
    accuracy=None,
    n=10_000,
    epochs=4,
    inverse=False,
    sweep=False,
    verdict="nothing speaks against the number",
    **more,
):
    """A run folder as training and evaluation leave it, without having run anything."""
    path.mkdir(parents=True)
    config = {
        "name": name,
        "seed": seed,
        "data": {"name": data, "root": str(path), "subset": None},
        "model": {"name": "resnet18", "width": None},
        "objective": objective or {"name": "pgd-at", "attack": {"steps": 10, "start": "uniform"}},
        "optimisation": {"epochs": epochs, "awp": 0.0},
        "evaluation": {"attacks": ["clean", "autoattack"]},
    }
    (path / "config.yaml").write_text(yaml.safe_dump({**config, **more}))
    rows = [
        {
            **{"epoch": e, "learning_rate": 0.1, "train_adv_ce": 2.0 - e / 10, "train_correct": 0.2 + e / 20},
            **{"seconds": 10.0, "clean": 0.5 + e / 20, "robust": 0.3 + (e + seed) / 40, "validation_seconds": 1.0},
            "alarms": [],
        }
        for e in range(epochs)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(path / "environment.json", {"torch": "2.14.1", "processor": "AMD EPYC", "device_names": []})
    if inverse:
        write_tensors(path / "inverse.safetensors", {"z": torch.rand(10, 3, 8, 8) - 0.5}, {"threat": "Linf:0.5"})
    if accuracy is not None:
        strengths = [-0.015686, 0.0, 0.015686, 0.031373]
        result = {
            **{"run": name, "which": "best", "data": data, "split": "test", "threat": threat, "n": n, "seed": 0},
            **{"accuracy": accuracy, "seconds": dict.fromkeys(accuracy, 2.0), "verdict": verdict},
            "intervals": {key: [value - 0.01, value + 0.01] for key, value in accuracy.items()},
            "per_class": {key: [max(0.0, value - i / 50) for i in range(10)] for key, value in accuracy.items()},
        }
        record = {"norm": "Linf", "attack": "pgd-20", "epsilons": strengths, "accuracy": [0.9, 0.8, 0.6, 0.4]}
        write_json(path / "evaluation.json", result | ({"sweep": record} if sweep else {}))
    return path


ACCURACY = {"clean": 0.82, "autoattack": 0.485, "worst": 0.485}


def samples(path):
    x = torch.rand(3, 8, 8)
    images = {"natural": x, "adversarial": (x + 0.03).clamp(0, 1), "inverse": (x - 0.01).clamp(0, 1)}
    said = {"natural": (3, 0.9), "adversarial": (5, 0.6), "inverse": (3, 0.99)}
    shown = [Sample(index=i, label=3, images=images, predicted=said) for i in range(3)]
    confusion = [[10 if i == j else 1 for j in range(10)] for i in range(10)]
    return {path: Samples(CLASSES, "PGD-20", "the universal perturbation", shown, confusion)}


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, and one run of another."""
    uiat_ = {"name": "uiat", "weight": 3.5, "attack": {"steps": 10}}
    return [
        folder(tmp_path / "a", accuracy=ACCURACY, sweep=True),
        folder(tmp_path / "b", seed=1, accuracy=ACCURACY | {"autoattack": 0.475, "worst": 0.475}),
        folder(tmp_path / "c", name="uiat", objective=uiat_, accuracy=ACCURACY, inverse=True, sweep=True),
    ]


def test_what_several_runs_are_told_is_told_once(tmp_path):
    said = ["nothing speaks against the number", "do not believe it: gradients are zero"]
    texts = {"a": said[0], "b": said[1], "c": said[0]}
    runs = [
        folder(tmp_path / name, name=name, objective={"name": name}, accuracy=ACCURACY, verdict=text)
        for name, text in texts.items()
    ]
    assert verdicts(group_runs([read_files(run) for run in runs])) == [("a, c", said[0]), ("b", said[1])]


def pages(runs, out, **options):
    html, text = write_report(runs, out, **options)
    return html.read_text(), text.read_text()


def test_seeds_are_one_row_with_mean_and_deviation(runs):
    groups = group_runs(read_all(runs))
    assert [(group.label, group.seeds) for group in groups] == [("cifar10-resnet18-pgd-at", "0, 1"), ("uiat", "0")]
    assert spread(groups[0].values("autoattack")) == "48.00 ± 0.71"
    assert groups[0].training_seconds == [44.0, 44.0]


def test_runs_of_one_name_are_told_apart_by_what_differs(tmp_path):
    objectives = [{"name": "uiat", "weight": weight} for weight in (1, 2)]
    made = [folder(tmp_path / str(i), name="uiat", objective=o) for i, o in enumerate(objectives)]
    assert [g.label for g in group_runs(read_all(made))] == ["uiat, weight=1", "uiat, weight=2"]


def test_runs_judged_differently_are_no_one_row(tmp_path):
    made = [folder(tmp_path / str(n), seed=n, accuracy=ACCURACY, n=n) for n in (1000, 10_000)]
    groups = group_runs(read_all(made))
    assert len({group.label for group in groups}) == len(groups) == 2
    said = "different numbers of test images: 1000 (cifar10-resnet18-pgd-at (1000)); 10000 ("
    assert said in find_warnings(groups)[0]


def test_namesakes_are_labelled_by_what_is_unusual_about_them(tmp_path):
    changes = [{}, {"awp": 0.005}, {"average": "ema"}, {"awp": 0.005, "average": "ema", "epochs": 9, "clip": 1, "x": 2}]
    made = [
        folder(tmp_path / str(i), name="uiat", optimisation={"awp": 0.0, "average": "none", "epochs": 4} | change)
        for i, change in enumerate(changes)
    ]
    labels = [group.label for group in group_runs(read_all(made))]
    assert labels[0] == "uiat, average=none, awp=0.0"
    assert labels[-1] == "uiat, average=ema, awp=0.005, epochs=9, clip=1, x=2"
    assert len(set(labels)) == 4


def test_what_all_runs_share_is_said_once(tmp_path):
    names = ("cifar10-small-pgd-at", "cifar10-small-pgd-at-awp", "cifar10-small-uiat")
    made = [folder(tmp_path / name, name=name, objective={"name": name}, accuracy=ACCURACY) for name in names]
    html, text = pages(made, tmp_path / "report.html")
    table = text[text.index("## Summary") : text.index("All runs:")]
    assert [line.split(" | ")[0] for line in table.splitlines()[4:7]] == ["| pgd-at", "| pgd-at-awp", "| uiat"]
    assert "threat model" not in table
    assert "All runs: n 10,000, seeds 0, data cifar10, threat model Linf 8/255." in text
    assert "The names of all runs begin with <code>cifar10-small-</code>" in html


def test_intervals_are_written_out(tmp_path):
    html, text = pages([folder(tmp_path / "a", accuracy=ACCURACY)], tmp_path / "report.html")
    assert "82.00 [81.0–83.0]" in text
    assert '82.00<small class="range">81.0–83.0</small>' in html


def test_a_caution_names_the_run_and_what_it_lacks(tmp_path):
    full = ACCURACY | {"pgd-20": 0.5}
    made = [folder(tmp_path / n, name=n, objective={"name": n}, accuracy=full) for n in "abcd"]
    made += [folder(tmp_path / "e", name="e", threat="L2:0.5", accuracy=ACCURACY)]
    said = find_warnings(group_runs(read_all(made)))
    assert said[0].startswith("The runs were judged on different threat models: L2 0.5 (e); Linf 8/255 (all others).")
    assert said[1].startswith("Not judged under pgd-20: e.")


def test_settings_of_one_method_are_no_difference(tmp_path):
    inverse = {"name": "uiat", "gamma": 0.9, "inverse": {"epoch": None}}
    objectives = [{"name": "pgd-at"}, inverse, inverse | {"inverse": {"epoch": 2}}]
    made = [folder(tmp_path / str(i), name=str(i), objective=o) for i, o in enumerate(objectives)]
    rows, partly = describe_differences(group_runs(read_all(made)))
    assert rows == [["objective.name", "pgd-at", "uiat", "uiat"], ["objective.inverse.epoch", "–", "none", "2"]]
    assert partly == ["objective.gamma = 0.9"]


def test_many_runs_get_a_chart_each(tmp_path):
    made = [folder(tmp_path / str(i), name=f"r{i}", objective={"name": f"r{i}"}) for i in range(8)]
    shown = training(group_runs(read_all(made)))
    assert [(part.title, len(part.figures)) for part in shown.panels] == [
        ("Accuracy by epoch, %", 8),
        ("Loss by epoch", 8),
    ]
    assert shown.panels[0].figures[0].svg.count('class="behind"') == 7
    few = training(group_runs(read_all(made[:3])))
    assert not few.panels
    assert all(figure.svg for figure in few.figures)


def test_the_twin_has_every_epoch_and_the_confusion(runs, tmp_path):
    _, text = pages(runs, tmp_path / "report.html", samples=samples(runs[2]))
    assert "| run | epoch 1 | epoch 2 | epoch 3 | epoch 4 |" in text
    assert "| uiat | 30 | 32.5 | 35 | 37.5 |" in text
    assert "| cat | 1 | 1 | 1 | 10 | 1 | 1 | 1 | 1 | 1 | 1 | 19 |" in text
    long = folder(tmp_path / "long", epochs=110)
    table = training(group_runs(read_all([long]))).tables[0]
    assert (len(table[1]), table[1][1], table[1][-1]) == (11, "epoch 1", "epoch 110")


def test_the_page_says_whether_models_were_run(runs, tmp_path):
    for known, said in ((None, "no model was run"), (samples(runs[2]), "their models answered on test images")):
        for text in pages(runs, tmp_path / "report.html", samples=known):
            assert said in text


def test_the_page_has_every_part(runs, tmp_path):
    html, text = pages(runs, tmp_path / "report.html", samples=samples(runs[2]))
    for part in ("summary", "training", "strength", "classes", "confusion", "gallery", "universal", "differences"):
        assert f'id="h-{part}"' in html, part
    assert "48.00 ± 0.71" in html
    assert "48.00 ± 0.71" in text
    assert html.count('<svg class="chart"') == html.count('role="img"') == 4 + 1 + 2 + 1
    assert len(re.findall(r"<img [^>]*alt=\"[^\"]+", html)) == html.count("<img") == 3 * 5 + 10
    assert "| objective.name | pgd-at | uiat |" in text
    assert "cat images taken for" in html


def test_nothing_is_loaded_from_anywhere(runs, tmp_path):
    html, _ = pages(runs, tmp_path / "report.html", samples=samples(runs[2]))
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"#]+)', html))


def test_names_cannot_bring_markup(tmp_path):
    bad = folder(tmp_path / "a", name="<script>alert(1)</script>|", accuracy=ACCURACY, verdict="<b>bold</b>")
    html, text = pages([bad], tmp_path / "report.html")
    assert "<script>alert" not in html
    assert "<b>bold" not in html
    assert "<script>" not in text
    assert "&lt;script>alert(1)&lt;/script>\\|" in text


def test_a_published_number_stands_beside_each(tmp_path):
    results = [0.509, 0.485, 0.40]
    made = [folder(tmp_path / str(a), accuracy=ACCURACY | {"autoattack": a}) for a in results]
    alone = [compare(group_runs(read_all([run]))[0])["autoattack"].judgement for run in made]
    assert alone == ["suspicious: more than published", "agrees", "less than published"]
    html, text = pages(made[:1], tmp_path / "report.html")
    line = "autoattack: yours 50.9, published 48.3–48.7 (tolerance 1.0; MAIR's benchmark table"
    assert line in text
    assert "published 48.3–48.7: suspicious" in html


def test_fewer_images_widen_the_tolerance(tmp_path):
    run = folder(tmp_path / "a", accuracy=ACCURACY | {"autoattack": 0.509}, n=1000)
    one = compare(group_runs(read_all([run]))[0])["autoattack"]
    assert one.judgement == "agrees"
    assert one.tolerance == pytest.approx(1 + 3.1, abs=0.1)


# UIAT that is not the instance-wise one of which there are published numbers.
VARIANTS = (
    {"inverse": {"kind": "universal", "epoch": None}},
    {"inverse": {"kind": "universal", "epoch": 5}},
    {"inverse": {"kind": "instance"}, "attack": {"steps": 1, "start": "uniform", "bounded": False}},
)


@pytest.mark.parametrize(
    "changed",
    [
        {"threat": "Linf:0.1"},
        {"data": "svhn"},
        {"model": {"name": "small-cnn"}},
        {"data_": {"name": "cifar10", "subset": 20_000}},
        {"objective": {"name": "uiat"}},
        {"model": {"name": "resnet18", "width": 32}},
        {"model": {"name": "resnet18", "activation": "silu"}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 0}}, "optimisation": {"replays": 4}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 10}, "label_smoothing": 0.1}},
        {"objective": {"name": "pgd-at", "attack": {"steps": 10}, "alignment": 0.2}},
        {"objective": {"name": "pgd-at", "attack": {"threat": {"norm": "Linf", "epsilon": "4/255"}}}},
        {"objective": {"name": "pgd-at", "attack": {"threat": {"norm": "L2", "epsilon": 0.5}}}},
        {"objective": {"name": "trades", "weight": 1.0}},
        {"objective": {"name": "trades", "attack": {"steps": 1}}},
        {"optimisation": {"average": "ema"}},
        {"optimisation": {"average": "swa", "awp": 0.005}},
        *({"model": {"name": "wrn-28-10"}, "objective": {"name": "uiat", **objective}} for objective in VARIANTS),
    ],
)
def test_nothing_is_compared_with_what_it_is_not(tmp_path, changed):
    changed = {key.rstrip("_"): value for key, value in changed.items()}
    config = {"data": changed.pop("data")} if isinstance(changed.get("data"), dict) else {}
    run = folder(tmp_path / "a", accuracy=ACCURACY, **changed)
    if config:
        tree = yaml.safe_load((run / "config.yaml").read_text()) | config
        (run / "config.yaml").write_text(yaml.safe_dump(tree))
    assert compare(group_runs(read_all([run]))[0]) == {}


def test_instance_wise_is_compared_with_what_is_instance_wise(tmp_path):
    objective = {"name": "uiat", "weight": 3.5, "inverse": {"kind": "instance"}, "attack": {"steps": 10}}
    run = folder(tmp_path / "a", model={"name": "wrn-28-10"}, objective=objective, accuracy=ACCURACY)
    assert compare(group_runs(read_all([run]))[0])["autoattack"].short == "published 52.2: less"


def test_the_published_numbers_are_possible():
    for one in PUBLISHED:
        assert 20 < one.low <= one.high < 95
    keys = [(model, one.method, one.attack, one.data) for one in PUBLISHED for model in one.models]
    assert len(keys) == len(set(keys))
    for name in ("fgsm", "fgsm-rs", "n-fgsm", "grad-align"):
        assert published_method(to_dict(recipes.get(f"cifar10-small-{name}"))) == name
    assert published_method(to_dict(recipes.get("cifar10-small-pgd-at"))) == "pgd-at"
    others = {"free": "free-4", "iat": "iat", "uiat": "uiat", "uiat-one-off": "uiat-one-off", "trades": "trades"}
    single = {"n-fgsm-uiat": "n-fgsm-uiat", "free-uiat-one-off": "free-4-uiat-one-off", "fgsm-uiat": "fgsm-uiat"}
    for name, said in (others | single).items():
        assert published_method(to_dict(recipes.get(f"cifar10-small-{name}"))) == said
    for name in ("pgd-at", "trades", "mart", "iat"):
        for kind in ("resnet18", "wrn28"):
            config = to_dict(recipes.get(f"cifar10-{kind}-{name}"))
            assert as_published(RunFiles(Path("a"), config)), name


def test_runs_of_other_data_and_threats_are_compared_only_after_saying_so(tmp_path):
    made = [
        folder(tmp_path / "a", name="a", accuracy=ACCURACY),
        folder(tmp_path / "b", name="b", data="svhn", accuracy=ACCURACY),
        folder(tmp_path / "c", name="c", threat="L2:0.5", accuracy=ACCURACY),
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
    html, text = pages([folder(tmp_path / "a")], tmp_path / "report.html")
    assert "Not evaluated, and so without accuracy on test images" in html
    assert "not evaluated: there is no evaluation.json" in text
    assert 'id="h-training"' in html


def test_a_cut_last_line_of_metrics_is_left_out_and_said(tmp_path):
    run = folder(tmp_path / "a", epochs=3)
    path = run / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])
    files = read_files(run)
    assert len(files.history) == 2
    assert "the last line of metrics.jsonl is cut off and was left out (line 3)" in files.notes


def test_alarms_are_told(tmp_path):
    run = folder(tmp_path / "a", epochs=1)
    row = json.loads((run / "metrics.jsonl").read_text()) | {"alarms": ["at chance"]}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "alarm in epoch 1: at chance" in read_files(run).notes


DAMAGES = {
    "metrics": ("metrics.jsonl", 'x\n{"epoch": 1}\n', "metrics.jsonl is damaged in line 1"),
    "evaluation": ("evaluation.json", '{"accuracy": ', "evaluation.json is damaged: it does not hold a JSON object"),
    "result": ("evaluation.json", '{"accuracy": {"clean": "x"}}', "evaluation.json is damaged: evaluate the run again"),
    "environment": ("environment.json", "[]", "environment.json is damaged"),
    "config": ("config.yaml", "name: [", "config.yaml is damaged: it does not hold the settings of a run"),
    "inverse": ("inverse.safetensors", "junk", "is not a readable safetensors file"),
}


@pytest.mark.parametrize(("name", "content", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_clear_line(tmp_path, capsys, name, content, says):
    run = folder(tmp_path / "a", accuracy=ACCURACY)
    (run / name).write_text(content)
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_what_is_no_run_is_refused(tmp_path, capsys):
    run = folder(tmp_path / "a")
    for words, says in [
        (["report"], "name at least one run folder"),
        (["report", str(tmp_path)], "is not a run folder: it has no config.yaml"),
        (["report", str(run), f"{run}/../a"], "is named twice"),
        (["report", str(run), "--out", str(tmp_path / "r.pdf")], "should end in .html"),
        (["report", str(run), "--out", str(tmp_path / "no" / "r.html")], "there is no folder"),
    ]:
        assert main(words) == 2
        assert says in capsys.readouterr().err


def test_only_a_report_is_replaced(tmp_path):
    out, run = tmp_path / "report.html", folder(tmp_path / "a")
    write_report([run], out)
    write_report([run], out)
    (tmp_path / "report.md").write_text("my notes")
    with pytest.raises(uiat.UserError, match=r"report.md exists and was not written by uiat report"):
        write_report([run], out)
    assert (tmp_path / "report.md").read_text() == "my notes"
    (tmp_path / "dir.html").mkdir()
    with pytest.raises(uiat.UserError, match="was not written by uiat report"):
        check_out(tmp_path / "dir.html")


def test_the_command_makes_its_pictures(tmp_path, capsys, unchecked):
    uiat.train(tiny.run(epochs=1), run_dir=tmp_path / "run")
    command = ["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html"), "--images", "40", "--shown", "3"]
    assert main(command) == 0
    html = (tmp_path / "r.html").read_text()
    assert "Inverse: the universal perturbation of the true class" in html
    assert html.count('class="card"') == 3
    assert "PGD-20, 40 images" in html
    examples = tmp_path / "run" / "examples.safetensors"
    assert (
        main(["evaluate", str(tmp_path / "run"), "--attacks", "fgsm", "--n", "40", "--save-examples", str(examples)])
        == 0
    )
    assert main(command) == 0
    assert "examples in examples.safetensors" in (tmp_path / "r.html").read_text()
    (tmp_path / "run" / "best.safetensors").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "no pictures of" in capsys.readouterr().out


def test_a_png_holds_the_pixels():
    content = png(torch.tensor([[[0.0, 1.0]], [[0.5, 0.0]], [[1.0, 0.0]]]))
    start = content.index(b"IDAT") + 4
    assert zlib.decompressobj().decompress(content[start:]) == bytes([0, 0, 128, 255, 255, 0, 0])
    shown, factor = magnified(torch.zeros(1, 2, 2))
    assert (shown.unique().tolist(), factor) == ([0.5], 1.0)


def test_charts_take_what_measurements_bring():
    assert ticks(0, 0.73) == [0.0, 0.2, 0.4, 0.6]
    assert ticks(3, 3) == [3]
    assert around(0, 0.271)[-1] > 0.271 > around(0, 0.271)[-2]
    assert around(1.3, 1.7) == [1.3, 1.4, 1.5, 1.6, 1.7]
    places = apart([5.0, 5.0, 6.0, 40.0], 10)
    assert all(b - a >= 10 - 1e-9 for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
    svg = curves("t", [Series("a", ((1, float("nan")), (2, 0.5)))], x="x", y="y")
    assert "nan" not in svg
    assert "<svg" in curves("nothing", [], x="x", y="y", share=True)
    assert threat_text("L1:12") == "L1 12"


# The page in a frame of the width of a phone or of a screen, as windows have a least width; and what can be seen of it.
PROBE = """<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin:0">
<iframe style="width:WIDTHpx;height:1000px;border:0" srcdoc="PAGE"></iframe><pre id="probe"></pre><script>
onload = () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, width = frame.contentWindow.innerWidth;
  const head = [...page.querySelectorAll("table.sortable th button")];
  const rows = () => [...page.querySelectorAll("table.sortable tbody tr")].map(row => row.cells[1].dataset.sort);
  const shown = [...page.querySelectorAll("figure, figure svg, figure img")].map(e => e.getBoundingClientRect());
  const found = { width, wide: page.documentElement.scrollWidth, figures: shown.length, buttons: head.length };
  found.hidden = shown.filter(r => r.width < 20 || r.height < 20 || r.left < 0 || r.right > width + 1).length;
  found.focusable = head.every(button => { button.focus(); return page.activeElement === button; });
  head[1].click(); found.down = rows(); head[1].click(); found.up = rows();
  found.sort = page.querySelectorAll("th[aria-sort=ascending]").length;
  const asked = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
  found.asked = asked.filter(name => !name.startsWith("data:"));
  document.querySelector("#probe").textContent = JSON.stringify(found);
};
</script>"""


def browse(html, width, tmp_path):
    """The probe's findings at some width, the console's lines, and the addresses that were asked for."""
    page, log = tmp_path / f"{width}.html", tmp_path / f"net-{width}.json"
    page.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", escape(html)))
    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"]
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}"),
        *("--enable-logging=stderr", "--window-size=1400,1100", f"--log-net-log={log}", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = re.findall(r'"url":"((?:https?|ftp|wss?):[^"]*)"', log.read_text(errors="replace"))
    return json.loads(found[1]), said, [address for address in asked if not ITS_OWN.match(address)]


@pytest.mark.skipif(BROWSER is None, reason="no browser: needs chromium, chromium-browser or google-chrome on PATH")
def test_in_a_browser(runs, tmp_path):
    html, _ = pages(runs, tmp_path / "report.html", samples=samples(runs[2]))
    for width in (390, 1280):
        found, said, asked = browse(html, width, tmp_path)
        assert said == []
        assert asked == found["asked"] == []
        assert found["width"] == width >= found["wide"], "the page must not scroll sideways"
        assert (found["figures"] > 20, found["hidden"]) == (True, 0)
        headings = html.count('<th scope="col"', 0, html.index("</thead>"))
        assert (found["buttons"], found["focusable"], found["sort"]) == (headings, True, 1)
        assert found["down"] == sorted(found["up"], reverse=True)


@pytest.mark.skipif(BROWSER is None, reason="no browser: needs chromium, chromium-browser or google-chrome on PATH")
def test_on_paper(tmp_path):
    settings = [
        {"name": f"method-{i}", "inverse": {"kind": "universal" + "-" * i, "start_radius": i}} for i in range(12)
    ]
    made = [
        folder(
            tmp_path / str(i), name=f"a-rather-long-{o['name']}", objective=o, accuracy=ACCURACY | {"pgd-50-10": 0.5}
        )
        for i, o in enumerate(settings)
    ]
    out = tmp_path / "report.html"
    write_report(made, out, samples=samples(made[0]))
    pdf = tmp_path / "report.pdf"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [BROWSER, *quiet, f"--print-to-pdf={pdf}", out.as_uri()], capture_output=True, check=True, timeout=200
    )
    content = pdf.read_bytes()
    assert re.search(rb"/MediaBox \[0 0 59[45]\S* 84[12]", content), "A4"
    # A browser shrinks pages on which something is too wide. A sheet begins with its own scale, 300 dots an inch, and
    # the first scale after it is that of the page: 3.125 dots for each of the 96 pixels in an inch.
    sheets = [part for part in inflated(content) if re.match(rb"\.2[34]\d* 0 0 -\.2[34]", part)]
    scales = {float(re.search(rb"\n(\S+) 0 0 \1 \S+ \S+ cm", sheet)[1]) for sheet in sheets}
    assert len(sheets) > 2
    assert scales == {3.125}, "printed smaller than it is: something is wider than the paper"


def inflated(content):
    """The streams of a PDF that can be inflated."""
    for found in re.finditer(rb"stream\r?\n", content):
        try:
            yield zlib.decompressobj().decompress(content[found.end() :])
        except zlib.error:
            continue
