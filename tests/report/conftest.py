import pytest

from support.run_folders import ACCURACY, write_run


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, and one run of another."""
    uiat_ = {"name": "uiat", "weight": 3.5, "attack": {"steps": 10}}
    return [
        write_run(tmp_path / "a", accuracy=ACCURACY, sweep=True),
        write_run(tmp_path / "b", seed=1, accuracy=ACCURACY | {"autoattack": 0.475, "worst": 0.475}),
        write_run(tmp_path / "c", name="uiat", objective=uiat_, accuracy=ACCURACY, inverse=True, sweep=True),
    ]
