"""`uiat sweep`: its words, its lines and tables, its exit codes."""

import io

import pytest
from rich.console import Console

import uiat
from support.sweeps import SMALL
from uiat.cli.sweep import Board, _make_table
from uiat.experiments import GridRun, finish


@pytest.fixture
def run_sweep(ask, tmp_path):
    """Run a small sweep of digits into the folder `sweep`: (exit code, standard output, standard error)."""

    def run_sweep(*words, recipe="digits-uiat"):
        fixed = [f"{path}={value}" for path, value in SMALL.items()]
        return ask("sweep", recipe, *fixed, *words, "--out", tmp_path / "sweep")

    return run_sweep


def test_lines_tables_and_what_to_do_next(run_sweep, tmp_path):
    words = ["--seeds", "0,1", "objective.weight=1,2", "--set", "objective.gamma=0.5", "--validation.every", "1"]
    code, out, err = run_sweep(*words)
    assert (code, err) == (0, "uiat: warning: objective.gamma has no effect: objective.momentum is none\n")
    lines = out.splitlines()
    assert lines[0].startswith(f"4 runs in {tmp_path / 'sweep'}, all with objective.gamma=0.5 optimisation.epochs=1")
    assert "[1/4] objective.weight=1 seed=0: training" in lines
    assert "[1/4] objective.weight=1 seed=0: evaluating" in lines
    assert any(line.startswith("[4/4] objective.weight=2 seed=1: done: clean ") for line in lines)
    assert "mean and standard deviation over seeds" in out
    assert "uiat report" in out


def test_a_run_that_fails_is_listed(run_sweep, monkeypatch):
    def train(*args, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(finish, "train", train)
    code, out, _ = run_sweep()
    assert code == 1
    assert "1 of 1 runs failed; the same command tries them again" in out
    assert "  seed=0: RuntimeError: no memory" in out


def test_ctrl_c_says_how_to_resume(run_sweep, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "train", stop)
    code, _, err = run_sweep()
    assert (code, err) == (130, "uiat: stopped with 0 of 1 runs done; the same command resumes it\n")


MISTAKES = {
    "recipe": (["digits-uait"], "did you mean 'digits-uiat'"),
    "no recipe": (["seed=1"], "name a recipe"),
    "two recipes": (["digits-uiat", "digits-iat"], "unexpected 'digits-iat'"),
    "field": (["digits-uiat", "--set", "objective.gama=1"], "did you mean 'objective.gamma'"),
    "short field": (["digits-uiat", "epochs=3,4"], "did you mean optimisation.epochs=3"),
    "value": (["digits-uiat", "objective.weight=1,x"], "objective.weight must be a number, not 'x'"),
    "no value": (["digits-uiat", "--set", "objective.weight"], "a setting is FIELD=VALUE,VALUE"),
    "field twice": (["digits-uiat", "objective.weight=1", "--set", "objective.weight=2"], "is set twice"),
    "seed field": (["digits-uiat", "seed=1,2"], "with --seeds"),
    "seeds": (["digits-uiat", "--seeds", "0,x"], "seeds are whole numbers"),
    "option": (["digits-uiat", "--seds", "0"], "did you mean '--seeds'"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(ask, tmp_path, words, says):
    code, out, err = ask("sweep", *words, "--out", tmp_path / "sweep")
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def runs_of(tmp_path):
    runs = [GridRun({"objective.weight": weight}, uiat.Run(), tmp_path / weight) for weight in ("1", "2")]
    runs[0].status, runs[0].result = "done", {"accuracy": {"clean": 0.5, "worst": 0.25}}
    runs[1].status, runs[1].note = "training", "epoch 1/2, step 3/9"
    return runs


def test_the_table_of_a_sweep_under_way(tmp_path):
    shown = _make_table(runs_of(tmp_path))
    assert [str(column.header) for column in shown.columns] == [
        *("objective.weight", "seed", "clean", "worst", "lowest class", "training, s", "state")
    ]
    assert list(shown.columns[-1].cells) == ["done", "training, epoch 1/2, step 3/9"]
    assert list(shown.columns[3].cells) == ["25.00 %", "-"]


def test_a_terminal_sees_the_table_fill(tmp_path):
    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    runs = runs_of(tmp_path)
    with Board(out, tmp_path) as board:
        board.planned(runs)
        board.changed(runs[1])
    assert "step 3/9" in out.file.getvalue()


def test_a_dry_run_shows_what_would_run_and_makes_nothing(run_sweep, tmp_path):
    words = ["objective.weight=1,2", "--seeds", "0,1"]
    code, out, _ = run_sweep(*words, "--dry-run")
    assert code == 0
    assert "4 runs in" in out
    assert out.count(" new") == 4
    assert not (tmp_path / "sweep").exists()
    assert run_sweep(*words, "--part", "2/4")[0] == 0
    rows = [line.split() for line in run_sweep(*words, "--dry-run")[1].splitlines()]
    states = [row[-1] for row in rows if row[:1] in (["1"], ["2"])]
    assert states == ["new", "done", "new", "new"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--part", "5/4"], "a part is I/N with I from 1 to N, such as 2/8, not '5/4'"),
        (["--part", "1/2", "--slurm", "2"], "--slurm submits every part itself: leave --part out"),
        (["--jobs", "0"], "'--jobs' / '-j': Input should be greater"),
    ],
)
def test_what_the_parts_of_a_sweep_cannot_be(run_sweep, words, says):
    code, _, err = run_sweep(*words)
    assert code == 2
    assert says in err
