"""The page is one file that asks for nothing elsewhere, and its policy allows just what stands in it."""

import base64
import hashlib
import json
import re

import torch

from uiat.explore.page import describe, encode, render


def test_the_policy_names_what_is_there(explorer):
    page, policy = render(describe(explorer, form="live"), connect=True)
    assert f'content="{policy}"' in page
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert " style=" not in page, "the policy forbids styles of single elements"


def test_names_are_text(explorer):
    page, _ = render(describe(explorer, form="live"), connect=True)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["classes"] == ["</script>", "b"]


def test_what_the_page_knows(explorer):
    facts = describe(explorer, form="saved")
    assert (facts["radii"][0], facts["radii"][16], facts["radii"][-1], facts["span"]) == ("−0.2", "0", "+0.2", 0.2)
    assert [source["text"] for source in facts["sources"]] == [
        "PGD-10 on first",
        "PGD-10 on second",
        "Universal perturbation of first (Linf 0.05)",
    ]
    assert encode(torch.tensor([[[0, 255]]], dtype=torch.uint8)) == encode(torch.tensor([[[0.0, 1.0]]]))
