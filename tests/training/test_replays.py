"""Replays: what they fit and what not; what they compute is in test_step."""

import pytest
import torch

from support.helpers import pgd
from uiat import FAT, GAIRAT, HAT, PGDAT, UIAT, SelfAdaptive, Squeeze, Standard, UserError
from uiat.inverse import UniversalInverse
from uiat.training.replays import check_replays
from uiat.training.step_options import StepOptions

FREE = pgd(0, start="uniform")


@pytest.mark.parametrize(
    ("objective", "replays", "says"),
    [
        (PGDAT(attack=FREE), 0, "takes them from replays"),
        (Standard(), 2, "trains on adversarial examples, not 'standard'"),
        (UIAT(attack=FREE, inverse=UniversalInverse(regulariser="feature")), 2, "set it to none"),
        (PGDAT(attack=pgd(start="memory")), 2, "not .memory."),
        *((method(), 2, "which '[a-z]+' cannot do") for method in (FAT, GAIRAT, HAT, SelfAdaptive, Squeeze)),
    ],
)
def test_replays_say_what_they_do_not_fit(objective, replays, says):
    with pytest.raises(UserError, match=says):
        check_replays(replays, objective)
    with pytest.raises(UserError, match=says):
        StepOptions(replays=replays).adapt_to(objective, torch.device("cpu"))
