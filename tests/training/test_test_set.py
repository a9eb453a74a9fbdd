"""The test images of a run are never those that it was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from uiat.config.schema import Data, Run
from uiat.errors import UserError
from uiat.training.test_set import open_lasting_test_set, open_test_set


def test_a_file_of_one_part_is_no_test_set_of_its_own_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 8, 8)), y=np.arange(2))
    with pytest.raises(UserError, match=r"a.npz has one part, which runs/a was trained on: name other images"):
        open_test_set(Run(data=Data(name=f"npz:{tmp_path}/a.npz")), Path("runs/a"))


def test_images_that_pass_by_once_are_refused_where_more_passes_are_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("import torch\n\n\ndef f(split):\n    yield torch.zeros(2, 1, 8, 8), torch.arange(2)\n")
    run = Run(data=Data(name="mine.py:f"))
    assert torch.equal(open_test_set(run, Path("a"), own_code=True).head[1], torch.arange(2))
    with pytest.raises(UserError, match="yields its images once, and more passes are needed"):
        open_lasting_test_set(run, Path("a"), own_code=True)
