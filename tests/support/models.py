"""Built-in models of usual shapes, and the message of a refusal."""

from functools import partial

import pytest
import torch
from torch import nn

from uiat.errors import UserError
from uiat.models import build

cifar = partial(build, num_classes=10, image_shape=(3, 32, 32))


digits = partial(build, num_classes=10, image_shape=(1, 8, 8))


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return cifar(name, **options)


def refusal(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
