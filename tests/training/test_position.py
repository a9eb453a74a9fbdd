"""A position is taken from a checkpoint only if it is one of the run."""

import pytest

from uiat import UserError
from uiat.training.position import POSITION, read_position

HERE = {
    **{"epoch": 1, "position": 2, "seconds": 0.5, "history": [{"epoch": 0}], "best": None, "stale": 0, "rollbacks": 0},
    **{"stopped": False, "steps_per_epoch": 3},
}


def test_a_position_of_the_run_is_returned_as_it_stands():
    found = read_position(HERE, epochs=2, steps_per_epoch=3)
    assert found == {name: HERE[name] for name in POSITION}


@pytest.mark.parametrize(
    "change",
    [{"epoch": 3}, {"epoch": -1}, {"position": 4}, {"position": "2"}, {"history": None}, {"steps_per_epoch": 4}],
    ids=str,
)
def test_any_other_is_refused(change):
    with pytest.raises(UserError, match="is not one of this run: the file is damaged or foreign"):
        read_position({**HERE, **change}, epochs=2, steps_per_epoch=3)
