"""The extra measurements of an evaluation: what is planned, refused and left out."""

import pytest
import torch
from torch import nn

from uiat import Linf, UserError
from uiat.certify import Contradiction
from uiat.experiments.evaluation_state import extra_state
from uiat.experiments.extras import check_extras, drop_gradient_extras, plan_extras, run_extras

THREAT = Linf(0.2)


def test_a_plan_has_what_is_asked_for_and_no_more():
    assert plan_extras(threat=THREAT, data="digits") == {}
    plan = plan_extras(threat=THREAT, data="cifar10", epsilons="0,0.1", norms="usual", corruptions="all")
    assert list(plan) == ["sweep", "unseen", "corruptions"]
    assert plan["sweep"]["epsilons"] == [0, 0.1]
    assert plan["unseen"] == {"trained": THREAT, "attack": "autoattack-quick", "data": "cifar10"}
    assert len(plan["corruptions"]["kinds"]) == 15


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epsilons": "0,4/255,2/255"}, "epsilons must ascend"),
        ({"epsilons": "0,0.1,0.1"}, "is in the list twice"),
        ({"epsilons": "0,2,4"}, 'did you mean "2/255"'),
        ({"epsilons": "0,0.1", "sweep_attack": "pdg-2"}, "unknown attack 'pdg-2'"),
        ({"norms": "usual"}, "unknown data set 'digits'"),
        ({"norms": "L3:0.5"}, "unknown norm 'L3'"),
        ({"norms": "L2:0.5", "norms_attack": "pdg-2"}, "unknown attack 'pdg-2'"),
        ({"corruptions": "smog"}, "did you mean 'fog'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(options, says):
    with pytest.raises(UserError) as caught:
        plan_extras(threat=THREAT, data="digits", **options)
    assert says in str(caught.value)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach().flatten(1)[:, :2]


def test_what_needs_a_gradient_is_left_out_where_there_is_none():
    plan = {"sweep": {"attack": "pgd-20"}, "unseen": {"attack": "square"}, "corruptions": {"kinds": ["fog"]}}
    x = torch.rand(2, 1, 8, 8)
    assert drop_gradient_extras(plan, nn.Flatten(), x) == plan
    assert list(drop_gradient_extras(plan, Detached(), x)) == ["unseen", "corruptions"]
    options = {"batch_size": 2, "seed": 0, "progress": lambda *_: None}
    measured = run_extras({"sweep": plan["sweep"]}, Detached(), x, torch.tensor([0, 1]), **options)
    assert measured == {"not_measured": ["sweep"]}


def test_the_state_of_an_earlier_certification_is_refused_before_the_attacks(tmp_path):
    plan, state = plan_extras(threat=THREAT, data="digits", certify=["smoothing-0.25"]), tmp_path / "state.safetensors"
    extra_state(state, next(iter(plan["smoothing"]))).write_bytes(b"")
    with pytest.raises(UserError, match="holds the state of a certification: resume it"):
        check_extras(plan, nn.Flatten(), is_stream=False, state=state)
    check_extras(plan, nn.Flatten(), is_stream=False, state=state, resume=True)


def test_certify_refuses_a_model_before_the_attacks_by_the_name_of_its_layer():
    plan = plan_extras(threat=THREAT, data="digits", certify=["bounds"])
    with pytest.raises(UserError, match=r"--certify: no bounds are known of the layer 1 \(Tanh\)"):
        check_extras(plan, nn.Sequential(nn.Flatten(), nn.Tanh()), is_stream=False)
    with pytest.raises(UserError, match="these are streamed"):
        check_extras(plan, nn.Sequential(nn.Flatten()), is_stream=True)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.rand(3, 1, 8, 8)
    y, options = model(x).argmax(1), {"batch_size": 2, "seed": 0, "progress": lambda *_: None}
    small = {"certified": {"threat": Linf(1e-5)}}
    proofs = run_extras(small, model, x, y, broken_by=["", "", ""], **options)["certified"]["certified_by"]
    broken_by = ["pgd-5" if proof else "" for proof in proofs]
    assert any(proofs)
    with pytest.raises(Contradiction, match="is certified by"):
        run_extras(small, model, x, y, broken_by=broken_by, **options)
