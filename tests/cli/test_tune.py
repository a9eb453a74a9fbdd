"""`uiat tune`: its lines, its table, its mistakes."""

import pytest

from uiat.cli import tune as command
from uiat.experiments.tune import Trial

TRIALS = [
    Trial(0, {"objective.weight": "3.5"}, "done", 0.9, 0.4, [0.3, 0.4]),
    Trial(1, {"objective.weight": "2"}, "done", 0.9, 0.5, [0.4, 0.5], best=True),
    Trial(2, {"objective.weight": "9"}, "failed", reason="no memory"),
]


def test_the_table_has_the_front_first(ask, tmp_path, monkeypatch):
    def run_tune(run, *, on_change, **options):
        for trial in TRIALS:
            on_change(trial)
        return TRIALS

    monkeypatch.setattr(command, "run_tune", run_tune)
    code, out, err = ask("tune", "digits-uiat", "--trials", "3", "--out", tmp_path / "t")
    assert (code, err) == (0, "")
    assert "trial-001 objective.weight=2: done, clean 90.00 %, robust 50.00 % ▇█" in out
    assert "trial-002 objective.weight=9: failed: no memory" in out
    assert f"uiat evaluate {tmp_path}/t/trial-001" in out
    table = out[out.index("Pareto front") :].splitlines()
    assert [line.split()[0] for line in table[3:6]] == ["1", "0", "2"]
    assert "*" in table[3]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["digits-uiat", "--space", "objective.weight=4..1"], "is no range"),
        (["digits-uiat", "--space", "evaluation.n=1..10"], "cannot be tuned"),
        (["digits-uait"], "did you mean 'digits-uiat'"),
        (["digits-uiat", "--trails", "3"], "did you mean '--trials'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(ask, tmp_path, words, says):
    code, _, err = ask("tune", *words, "--out", tmp_path / "t")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "t").exists()
