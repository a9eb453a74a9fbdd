"""No image is certified and broken; a linear model is certified exactly; what bounds cannot prove is refused."""

import pytest
import torch
from torch import nn

from uiat import L2, PGD, Linf, UserError, evaluate
from uiat.certify import CertifiedResult, Contradiction, certify_bounds


def random_net(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5 + 2.0 * (seed % 3))
    return model, torch.rand(12, 1, 2, 2)


def test_no_image_of_random_nets_is_certified_and_broken():
    certified = broken = 0
    for seed in range(12):
        model, x = random_net(seed)
        y, threat = model(x).argmax(1), Linf((0.01, 0.03, 0.1)[seed % 3])
        result = certify_bounds(model, x, y, threat=threat)
        attack = PGD(threat=threat, step_size=float(threat.epsilon) / 4, steps=10, loss="margin", restarts=2)
        wrong = model(attack(model, x, y)).argmax(1) != y
        result.check_attacks(["pgd" if each else "" for each in wrong.tolist()])
        certified, broken = certified + sum(map(bool, result.certified_by)), broken + int(wrong.sum())
    assert certified > 30  # of 144: the test could have failed
    assert broken > 5


def test_a_linear_model_is_certified_exactly():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(40, 1, 2, 2)
    y = model(x).argmax(1)
    weight = model[1].weight.detach().double()
    change = weight[y].unsqueeze(1) - weight  # of each margin with each pixel
    low, high = ((x.double() + sign * 0.1).clamp(0, 1).flatten(1).unsqueeze(1) for sign in (-1, 1))
    margins = (torch.where(change > 0, low, high) * change).sum(2)
    bias = model[1].bias.detach().double()
    exact = (margins + bias[y].unsqueeze(1) - bias).masked_fill(nn.functional.one_hot(y, 3).bool(), torch.inf).amin(1)
    result = certify_bounds(model, x, y, threat=Linf(0.1))
    ibp = certify_bounds(model, x, y, threat=Linf(0.1), linear=False)
    assert [bool(proof) for proof in result.certified_by] == (exact > result.tolerance + 1e-5).tolist()
    assert 0 < ibp.accuracy < result.accuracy < 1  # intervals forget what the logits have in common
    left = torch.tensor([proof != "ibp" for proof in result.certified_by])
    torch.testing.assert_close(torch.tensor(result.margins).double()[left], exact[left], rtol=0, atol=1e-5)


def test_an_image_that_is_wrong_as_it_is_is_not_certified():
    model, x = random_net(0)
    y = (model(x).argmax(1) + 1) % 3
    assert certify_bounds(model, x, y, threat=Linf(0.001)).certified_by == [""] * 12


def test_proofs_are_held_against_an_evaluation():
    model, x = random_net(0)
    y = model(x).argmax(1)
    result, attacked = (
        certify_bounds(model, x, y, threat=Linf(0.01)),
        evaluate(model, x, y, threat=Linf(0.01), attacks=["pgd-10"], selfchecks=False),
    )
    result.check_attacks(attacked.broken_by)
    assert 0 < result.accuracy <= attacked.accuracy["worst"]
    place = result.certified_by.index(next(filter(None, result.certified_by)))
    attacked.broken_by[place] = "pgd-10"
    with pytest.raises(Contradiction, match=f"image {place} is certified by .* and broken by pgd-10 within Linf:0.01"):
        result.check_attacks(attacked.broken_by)
    with pytest.raises(UserError, match="1 verdicts, on 12"):
        result.check_attacks([""])


def test_a_record_says_what_was_proved_and_how():
    result = CertifiedResult(
        "Linf:0.1", ["ibp", "crown", "", ""], [1.0, 0.5, -1.0, -2.0], 1e-5, {"ibp": 1.0, "crown": 2.0}
    )
    record = result.to_json()
    assert (record["accuracy"], record["by_method"]) == (0.5, {"ibp": 0.25, "crown": 0.5})


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        out = self.linear(x.flatten(1))
        return out + nn.functional.relu(out, inplace=True)  # twice the ReLU, as it runs


def test_another_norm_and_a_model_that_is_not_what_is_read_are_refused():
    model, x = random_net(0)
    y = model(x).argmax(1)
    with pytest.raises(UserError, match="are for Linf, not L2"):
        certify_bounds(model, x, y, threat=L2(0.1))
    with pytest.raises(UserError, match=r"differ by .* from those of the layers that were read"):
        certify_bounds(InPlace(), x, y, threat=Linf(0.1))
    model[1].register_forward_hook(lambda _, __, out: 2 * out)
    with pytest.raises(UserError, match="layer 1: it has forward hooks"):
        certify_bounds(model, x, y, threat=Linf(0.1))


def test_of_images_that_are_all_misclassified_none_is_certified():
    model, x = random_net(0)
    calls = []
    y = (model(x).argmax(1) + 1) % 3
    result = certify_bounds(model, x, y, threat=Linf(0.01), progress=lambda *words: calls.append(words))
    assert (result.accuracy, calls) == (0.0, [])
