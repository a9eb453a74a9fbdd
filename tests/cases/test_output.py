"""Output: names of others are text in every format, and work outlives pipe, disk and terminal."""

import json
import os
import pty
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import uiat
from support.forks import start, wait
from uiat import UserError
from uiat.analyse.result import Result, compact, markdown
from uiat.analyse.runner import STUDIES
from uiat.cli.output import console
from uiat.markup import markdown_code, markdown_text

TRAIN = ["train", "digits-standard", "data.subset=64", "model.width=4", "optimisation.epochs=2"]

# Names as text

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b || c",
    "[click](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "[a][b] [b]: http://example.org",
    "`<b>` ``code`` ```fence",
    "~~~ fence",
    "back\\slash \\<b> \\| \\`",
    "&lt;script&gt; &amp; &#60;",
    "<!-- comment --> <![CDATA[ x ]]>",
    "line\nbreak <b>\r\n# heading",
    "<http://example.org> <a@b.c>",
]


def rendered(text):
    """The HTML that a renderer which lets HTML through makes of a document."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def words(html):
    """(elements, text) of HTML."""
    text = re.sub("<[^>]*>", "", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, character)
    return set(re.findall(r"<\s*/?\s*([A-Za-z!]+)", html)), " ".join(text.split())


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    ("document", "elements"),
    [
        ("{}\n", {"p"}),
        ("- {}\n", {"ul", "li"}),
        ("| {} |\n| --- |\n| {} |\n", {"table", "thead", "tbody", "tr", "th", "td"}),
    ],
)
def test_a_name_in_markdown_is_what_it_says_and_nothing_else(name, document, elements):
    found, text = words(rendered(document.format(*[markdown_text(name)] * document.count("{}"))))
    assert found - {"em", "strong"} == elements
    assert text == " ".join([" ".join(name.split())] * document.count("{}"))


@pytest.mark.parametrize("name", [*NASTY, "`", "a``b", "` `"])
def test_a_name_in_code_is_what_it_says(name):
    found, text = words(rendered(f"- {markdown_code(name)}\n"))
    assert (found, text) == ({"ul", "li", "code"}, " ".join(name.split()))


@pytest.mark.parametrize("name", NASTY)
def test_a_study_shows_names_as_text(name):
    result = Result("strength", {}, f"Of {name}.", [["run", "clean"], [name, "1"]])
    found, text = words(rendered(markdown(STUDIES["strength"], result)))
    assert found == {"h", "p", "img", "table", "thead", "tbody", "tr", "th", "td"}
    assert text.count(" ".join(name.split())) == 2


# Control characters

OBEYED = ["\x1b[2J", "\x1b]0;title\x07", "\r", "\x9b31m", "\x7f", "\u202e", "\u2066", "\x00", "\x08\x08"]


@pytest.fixture(scope="module")
def received(trained, tmp_path_factory):
    """A run folder from elsewhere with control characters wherever there is text."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("received") / "run"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["name"] = "mine\x1b[2J\x9b"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = json.loads((folder / "environment.json").read_text())
    changed = {"processor": "cpu\x1b[1A", "commit": "abc\x1b]0;t\x07", "torch": "2\u202e", "python": "3\r"}
    (folder / "environment.json").write_text(json.dumps(environment | changed))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "manifest.json").unlink(missing_ok=True)  # whoever makes a folder up leaves none that gives it away
    rows[-1]["alarms"] = ["careful\x1b[31m"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def judged(received):
    evaluated = uiat.evaluate(
        uiat.load(received),
        *(part[:20] for part in uiat.data.tensors("digits", "test")),
        threat=uiat.Linf(0.1),
        attacks=["fgsm"],
    )
    record = evaluated.to_json() | {"run": "mine\x1b[2J", "which": "best", "data": "digits", "model": "a\x1b"}
    record |= {"verdict": "fine\x1b[2J\x1b[H", "warnings": ["look\x1b[8m"]}
    (received / "evaluation.json").write_text(json.dumps(record))
    return received


def assert_plain(*texts):
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text), repr(text)


def test_nothing_of_a_received_run_is_obeyed_by_a_terminal(ask, judged, tmp_path):
    code, out, err = ask("show", judged)
    assert (code, err) == (0, "")
    assert_plain(out)
    assert all(words in out for words in ("mine[2J", "cpu[1A", "careful[31m", "fine[2J[H", "abc]0;t"))
    code, out, err = ask("report", judged, "--out", tmp_path / "report.html", "--images", 20)
    assert code == 0
    assert_plain(out, err, (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text())
    assert "fine[2J[H" in (tmp_path / "report.html").read_text()


def test_nor_in_the_files_of_a_study(ask, judged, tmp_path, monkeypatch):
    code, out, err = ask("analyse", "strength", judged, "--out", tmp_path / "study", "-n", 10, "--attack", "fgsm")
    assert code == 0, err
    texts = [(tmp_path / "study" / f"strength.{ending}").read_text() for ending in ("json", "md", "svg")]
    assert_plain(out, err, *texts)


@pytest.mark.parametrize("controls", OBEYED)
def test_errors_tables_and_json_are_plain(capsys, controls):
    assert_plain(str(UserError(f"no such class {controls}x")))
    console().print(f"cat{controls}dog")
    shown = capsys.readouterr().out
    assert_plain(shown)
    assert shown.startswith("cat")
    assert shown.rstrip().endswith("dog")
    text = compact({"name": f"a{controls}", "list": ["ä", controls]})
    assert_plain(text)
    assert json.loads(text) == {"name": f"a{controls}", "list": ["ä", controls]}


def test_a_name_that_is_no_text_is_printed_all_the_same(ask, trained, tmp_path):
    folder = Path(shutil.copytree(trained, os.path.join(tmp_path, os.fsdecode(b"run-\xff"))))
    code, out, err = ask("show", folder)
    assert (code, err) == (0, "")
    assert "run-\ufffd" in out
    code, _, err = ask("report", folder, "--images", 0, "--out", tmp_path / "report.html")
    assert (code, err.count("\n")) == (2, 1)  # safetensors opens no such path
    assert "run-\ufffd" in err


# The size of the screen


@pytest.mark.parametrize("columns", ["0", "-1", "", "abc", "²", "1e3", "00", " "])
def test_columns_that_cannot_be_are_none(ask, monkeypatch, columns):
    usual = ask("recipes")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    assert ask("recipes") == usual
    assert usual[0] == 0
    assert len(usual[1].splitlines()) > 10


@pytest.mark.parametrize(("columns", "widest"), [("1", 20), ("20", 20), ("60", 60), ("99999999999999", 240)])
def test_columns_that_can_be_are_kept_to(monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    assert console().width == widest


# Streams that fail


def closed_pipe():
    """In a forked process: standard output is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def dead_terminal():
    """In a forked process: standard output is a terminal that has gone."""
    master, slave = pty.openpty()
    os.close(master)
    return os.fdopen(slave, "w")


def full_disk():
    return open("/dev/full", "w")


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
@pytest.mark.parametrize("broken", [closed_pipe, dead_terminal, full_disk])
def test_training_outlives_its_output(trained, tmp_path, broken, both):
    def before():
        sys.stdout = broken()
        sys.stderr = broken() if both else sys.stderr

    child = start([*TRAIN, "--run-dir", tmp_path / "run"], tmp_path / "out", errors=tmp_path / "err", before=before)
    assert wait(child) == 0, (tmp_path / "err").read_text()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said
    if not both and broken is full_disk:
        assert said == "uiat: warning: standard output cannot be written to: No space left on device\n"


@pytest.mark.parametrize("command", ["evaluate", "report", "analyse", "sweep"])
def test_other_work_outlives_a_full_disk_of_its_output(trained, tmp_path, command):
    words, made = {
        "evaluate": (["evaluate", trained, "--attacks", "fgsm", "-n", 9, "--out", tmp_path / "e"], "e/evaluation.json"),
        "report": (["report", trained, "--images", 0, "--out", tmp_path / "r.html"], "r.html"),
        "analyse": (["analyse", "strength", trained, "-n", 9, "--out", tmp_path / "a"], "a/strength.json"),
        "sweep": (["sweep", *TRAIN[1:], "evaluation.attacks=[fgsm]", "--out", tmp_path / "s"], "s/sweep.json"),
    }[command]
    assert wait(start(words, Path("/dev/full"), errors=tmp_path / "err")) == 0, (tmp_path / "err").read_text()
    assert (tmp_path / made).exists()
    assert (tmp_path / "err").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "words", [["recipes"], ["show", "RUN"], ["paper"], ["train", "--help"], ["cost", "digits-pgd-at"]]
)
def test_a_listing_on_a_full_disk_is_one_line_and_no_traceback(trained, tmp_path, words):
    words = [str(trained) if word == "RUN" else word for word in words]
    assert wait(start(words, Path("/dev/full"), errors=tmp_path / "err")) in ((0,) if words[0] == "train" else (1,))
    said = (tmp_path / "err").read_text()
    assert said == "uiat: warning: standard output cannot be written to: No space left on device\n"


@pytest.mark.parametrize("target", ["missing", "precious"])
def test_a_log_is_not_written_through_a_link(ask, trained, tmp_path, target):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "log").symlink_to(tmp_path / target)
    words = [
        "evaluate",
        trained,
        "--attacks",
        "clean",
        "-n",
        9,
        "--out",
        tmp_path / "e",
        "--log-file",
        tmp_path / "log",
    ]
    code, _, err = ask(*words)
    assert code == 2
    assert "it is a link: name the file itself" in err
    assert (tmp_path / "precious").read_text() == "keep"
    assert not (tmp_path / "missing").exists()


def test_a_log_is_added_to_and_plain(ask, trained, tmp_path):
    (tmp_path / "log").write_text("before\n")
    words = ["evaluate", trained, "--attacks", "fgsm", "-n", 9, "--out", tmp_path / "e", "--log-file", tmp_path / "log"]
    assert ask(*words)[0] == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "before"
    assert any(line.startswith("initial accuracy: ") for line in lines)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_report_that_is_written_again_is_no_more_open_than_before(trained, tmp_path, mode):
    from uiat.report import write_report

    for path in write_report([trained], tmp_path / "report.html"):
        path.chmod(mode)
    paths = write_report([trained], tmp_path / "report.html")
    assert [path.stat().st_mode & 0o777 for path in paths] == [mode, mode]


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_stops_a_training(trained, tmp_path, number):
    words = [*TRAIN[:-1], "optimisation.epochs=400", "validation.every=400", "--run-dir", tmp_path / "run"]
    child = start(words, tmp_path / "out", errors=tmp_path / "err")
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        time.sleep(0.01)
    os.kill(child, number)
    assert wait(child) == 130
    said = (tmp_path / "err").read_text()
    assert said.startswith("uiat: stopped in epoch ")
    assert "saved; resume with: uiat train --resume" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_stops_an_evaluation_that_can_be_resumed(trained, tmp_path, number):
    words = ["evaluate", trained, "--attacks", "clean,apgd-ce", "--out", tmp_path / "e"]
    child = start(words, tmp_path / "out", errors=tmp_path / "err")
    while not (tmp_path / "e" / "evaluation-state.safetensors").exists():
        time.sleep(0.01)
    os.kill(child, number)
    assert wait(child) == 130, (tmp_path / "out").read_text()
    state = tmp_path / "e" / "evaluation-state.safetensors"
    said = (tmp_path / "err").read_text()
    assert said == f"uiat: stopped; the same command with --resume resumes from {state}\n"
