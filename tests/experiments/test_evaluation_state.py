"""State files of evaluations of one run, side by side: which is whose, and who is refused."""

import pytest
import torch

from uiat.errors import Busy, UserError
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.state_file import StateFile
from uiat.experiments.evaluation_state import locked_state, remove_state
from uiat.system.distributed import Rank

ALONE = Rank()
USUAL = "evaluation-state.safetensors"


def claim(folder, seed, *, resume=False, beside_others=False):
    return locked_state(folder, {"seed": seed}, Rank(), resume=resume, beside_others=beside_others)


def write(path, seed, rank=ALONE):
    StateFile(path, {"seed": seed}, rank=rank).save(Outcomes(torch.arange(4)))


def test_six_at_once_have_six_files_and_leave_no_lock(tmp_path):
    with (
        claim(tmp_path, 0) as a,
        claim(tmp_path, 1) as b,
        claim(tmp_path, 2) as c,
        claim(tmp_path, 3) as d,
        claim(tmp_path, 4) as e,
        claim(tmp_path, 5) as f,
    ):
        paths = [a, b, c, d, e, f]
        for seed, path in enumerate(paths):
            write(path, seed)
        assert (len(set(paths)), a.name) == (6, USUAL)
        for path in paths:
            remove_state(path, Rank())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_evaluation_twice_is_refused_in_a_sentence(tmp_path, seed):
    with claim(tmp_path, 0) as first:
        write(first, 0)
        with claim(tmp_path, 1) as second:
            write(second, 1)
            with pytest.raises(Busy, match="under way in another process"), claim(tmp_path, seed, resume=True):
                pass


@pytest.mark.parametrize("files", [[USUAL], [USUAL + ".rank0-of-2", USUAL + ".rank1-of-2"]])
@pytest.mark.parametrize(
    ("seed", "resume", "beside_others", "usual"),
    [
        (0, True, False, True),  # its own, to be resumed
        (0, False, False, True),  # its own, to be refused by name
        (1, False, False, False),  # another's: beside it
        (1, True, False, True),  # another's, to be refused by name: a mistyped --resume
        (1, True, True, False),  # of a sweep: beside it
    ],
)
def test_a_state_that_was_left_is_resumed_refused_or_left(tmp_path, files, seed, resume, beside_others, usual):
    for number, name in enumerate(files):
        rank = Rank() if len(files) == 1 else Rank(number, 2)
        assert rank.path(tmp_path / USUAL).name == name
        write(tmp_path / USUAL, 0, rank)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with claim(tmp_path, seed, resume=resume, beside_others=beside_others) as path:
        assert (path.name == USUAL) is usual
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_state_is_chosen_to_be_refused_where_it_is_opened(tmp_path):
    (tmp_path / USUAL).write_bytes(b"garbage")
    with claim(tmp_path, 0, resume=True) as path, pytest.raises(UserError, match="not a readable"):
        StateFile(path, {"seed": 0}).open(resume=True)


def test_its_own_file_is_found_again_after_the_others_have_ended(tmp_path):
    with claim(tmp_path, 0), claim(tmp_path, 1) as second:
        write(second, 1)
    with claim(tmp_path, 1, resume=True) as again:
        assert again == second
