"""The saved page holds the answers that a server would give, to the precision of a byte."""

import base64
import json
import re

import pytest
import torch

from uiat.errors import UserError
from uiat.explore import Question, answers, save, save_page


def bytes_of(text):
    return torch.tensor(list(base64.b64decode(text)))


def test_every_answer_is_in_it(explorer, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "STEPS", 2)
    out = tmp_path / "new" / "page.html"
    save_page(explorer, out)
    text = out.read_text()
    facts = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert "connect-src" not in text
    assert "token" not in facts
    for source, label, position, image in [(0, 0, 5, 1), (1, 1, -16, 2), (2, 1, 9, 0)]:
        answer = explorer.answer(Question(source=source, label=label, position=position, image=image))
        if source < 2:
            held = facts["images"][image]["pgd"][str(source)][position + 16]
            assert (bytes_of(held["pixels"]) - 255 * answer.image.flatten()).abs().max() <= 0.51
        else:
            held = facts["images"][image]["universal"]["2"][label][position + 16]
            z = facts["sources"][2]
            factor = -z["perPosition"] * position * z["unit"]
            x = bytes_of(facts["images"][image]["pixels"])
            moved = (x + factor * (bytes_of(z["z"][label]) - 128)).round().clamp(0, 255)
            assert (moved - 255 * answer.image.flatten()).abs().max() <= 2, "as page.js adds it"
        assert (bytes_of(held["probabilities"]) / 255 - answer.probabilities.flatten()).abs().max() < 0.003
    save_page(explorer, out)  # it may be replaced


def test_what_is_in_the_way_stays(explorer, tmp_path, monkeypatch):
    other = tmp_path / "notes.html"
    other.write_text("mine")
    with pytest.raises(UserError, match="was not written by uiat explore"):
        save_page(explorer, other)
    with pytest.raises(UserError, match=r"should end in \.html"):
        save_page(explorer, tmp_path / "page.txt")
    monkeypatch.setattr(save, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="save fewer images"):
        save_page(explorer, tmp_path / "large.html")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.html"]
