"""torch.compile: which compilers a device needs."""

import shutil
import sys

import pytest
import torch

from uiat.speed.compile import can_compile


@pytest.mark.parametrize(
    ("device", "there", "able"),
    [
        ("cpu", "g++", True),
        ("cpu", "gcc", False),
        ("cuda", "gcc", True),
        ("cuda", "clang", True),
        ("cuda", "g++", False),
    ],
)
def test_each_device_has_its_compilers(monkeypatch, device, there, able):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    assert can_compile(torch.device(device)) is able
