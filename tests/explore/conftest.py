"""Two linear models on four grey images, one with universal perturbations: small enough to know every answer."""

import pytest
import torch
from torch import nn

from uiat.data import ImageSet
from uiat.explore import Explorer
from uiat.explore.answers import Subject
from uiat.inverse import UniversalPerturbation
from uiat.threat import Linf

SHAPE = (1, 3, 3)


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()


@pytest.fixture
def explorer():
    torch.manual_seed(0)
    data = ImageSet(0.3 + 0.4 * torch.rand(4, *SHAPE), torch.tensor([0, 0, 1, 1]), ("</script>", "b"), "example")
    z = UniversalPerturbation(0.05 * torch.rand(2, *SHAPE).sub(0.5).sign(), Linf(0.05))
    subjects = [Subject("first", linear(1), z), Subject("second", linear(2))]
    return Explorer(subjects, data, Linf(0.1), torch.device("cpu"))
