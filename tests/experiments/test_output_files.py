"""Files to write to that hold something else are refused before anything is done."""

import itertools

import pytest

OPTIONS = ("--json", "--save-examples", "--robustbench-json", "--log-file")
OWN_FILES = (
    "config.yaml",
    "best.safetensors",
    "metrics.jsonl",
    "evaluation.json",
    "evaluation-7.json",
    "manifest.json",
)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_takes_the_place_of_a_file_of_a_run(option, ask, run, tmp_path):
    before = contents(run)
    (tmp_path / "link").symlink_to(run / "config.yaml")
    for path in (*(run / name for name in OWN_FILES), tmp_path / "link"):
        code, _, err = ask("evaluate", run, "--attacks", "clean", "--n", 5, option, path)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{option} {path} is a file of a run or a sweep, and would be overwritten" in err
    assert contents(run) == before


def test_no_two_options_write_one_file(ask, run, tmp_path):
    words = ["evaluate", run, "--attacks", "clean", "--n", 5]
    first, again = tmp_path / "a.json", tmp_path / "run" / ".." / "a.json"
    for one, other in itertools.pairwise(OPTIONS):
        code, _, err = ask(*words, one, first, other, again)
        assert code == 2
        assert f"both {one} and {other} are {first}: one would overwrite the other" in err
    assert not first.exists()


def test_what_the_command_reads_and_its_own_results_are_kept(ask, own, tmp_path):
    words = ["evaluate", *own, "--attacks", "clean", "--n", 5, "--out", tmp_path]
    assert "is the file of --weights" in ask(*words, "--json", "w.pth")[2]
    assert "is a file of a run" in ask(*words, "--robustbench-json", "evaluation.json")[2]
    (tmp_path / "sweep.json").write_text("{}")
    assert "is a file of a run or a sweep" in ask(*words, "--json", "sweep.json")[2]
    code, _, err = ask(*words, "--json", "best.json", "--log-file", "log.txt")
    assert (code, err) == (0, "")
