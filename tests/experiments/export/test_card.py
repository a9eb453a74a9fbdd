"""The model card: what the Hub's library reads from it, and that nothing of a received run becomes markup."""

import sys
from dataclasses import replace

import pytest

from uiat.errors import UserError
from uiat.experiments.export import card, export_run
from uiat.experiments.export.bundle import open_bundle


@pytest.fixture
def bundle(evaluated_run):
    pytest.importorskip("huggingface_hub")
    return open_bundle(evaluated_run, which="best", own_code=False, root=None)


def test_the_hubs_library_reads_the_results(evaluated_run, tmp_path, bundle):
    from huggingface_hub import ModelCard

    done = export_run(evaluated_run, "hf", out=tmp_path / "new")
    assert done.files == ("README.md", "config.json", "model.py", "model.safetensors")
    read = ModelCard.load(done.folder / "README.md")
    accuracy = bundle.files.evaluation["accuracy"]
    assert {r.metric_name: r.metric_value for r in read.data.eval_results} == {
        "accuracy": round(100 * accuracy["clean"], 2),
        "robust accuracy, fgsm, Linf 0.2": round(100 * accuracy["fgsm"], 2),
        "robust accuracy, worst, Linf 0.2": round(100 * accuracy["worst"], 2),
    }
    assert read.data.datasets == ["digits"]
    for words in ("Universal Inverse Adversarial Training", "On 60 test images", "Self-checks:", "not certified"):
        assert words in read.content


def test_a_run_that_was_not_evaluated_says_so(bundle):
    text = card.make_card(replace(bundle, files=replace(bundle.files, evaluation=None)))
    assert "Not evaluated yet." in text
    assert "model-index" not in text


def test_what_a_received_run_says_stays_text(bundle):
    evil = "<script>alert(1)</script> [x](javascript:1) `a` \x1b[31m | b"
    accuracy = bundle.files.evaluation["accuracy"] | {"a|b": 0.5}
    evaluation = {**bundle.files.evaluation, "verdict": evil, "accuracy": accuracy}
    text = card.make_card(replace(bundle, name=evil, files=replace(bundle.files, evaluation=evaluation)))
    body = text.split("\n---\n", 1)[1]
    assert "\x1b" not in text
    assert "# `` <script>alert(1)</script> [x](javascript:1) `a` [31m | b ``" in body  # in backticks nothing is markup
    assert r"Self-checks: &lt;script>alert(1)&lt;/script> [x\](javascript:1) \`a\` [31m \| b." in body
    assert r"| a\|b |" in body  # and no name ends a cell of a table


def test_a_missing_package_is_named(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'uiat\[export\]'"):
        card.make_card(bundle)
