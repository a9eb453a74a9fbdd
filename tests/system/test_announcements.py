"""Work that takes its time is announced: before it, and after it with its seconds."""

import logging
import re

import pytest

import uiat
from uiat.system.announcements import announced
from uiat.system.log_lines import warnings_shown
from uiat.training import autotune


def test_commands_show_what_is_announced_and_no_other_information(capsys):
    logger = logging.getLogger("uiat")
    level = logger.level
    with warnings_shown():
        logger.info("not this")
        with announced("measuring a thing"):
            logger.warning("beware")
    assert logger.level == level
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["uiat: measuring a thing ...", "uiat: warning: beware"]
    assert re.fullmatch(r"uiat: measuring a thing: \d+\.\d s", lines[2])
    assert len(lines) == 3


def test_nobody_is_told_that_a_failed_work_took_its_time(caplog):
    with caplog.at_level(logging.INFO, "uiat"), pytest.raises(ValueError, match="no"), announced("measuring"):
        raise ValueError("no")
    assert [record.getMessage() for record in caplog.records] == ["measuring ..."]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"precision": "auto"}, "compute.precision=auto"),
        ({"compile": "auto"}, "compute.compile=auto"),
        ({"precision": "auto", "compile": "auto"}, "compute.precision and compute.compile=auto"),
        ({}, None),
    ],
)
def test_a_run_announces_its_measurements(monkeypatch, caplog, fields, named):
    monkeypatch.setattr(autotune, "is_bf16_faster", lambda device: False)
    monkeypatch.setattr(autotune, "is_compiling_faster", lambda *args, **options: False)
    run = uiat.Run(compute=uiat.Compute(**fields))
    with caplog.at_level(logging.INFO, "uiat"):
        model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        autotune.resolve_auto(run, model, image_shape=(1, 8, 8), num_classes=10, steps=1)
    said = [record.getMessage() for record in caplog.records if hasattr(record, "announced")]
    assert len(said) == (0 if named is None else 2)
    assert all(f"measuring what is faster on this machine, for {named}" in text for text in said)
