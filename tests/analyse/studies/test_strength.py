"""What the studies claim, on models whose answers are known."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from support import helpers
from uiat import Linf, Run
from uiat.analyse.studies.alignment import cosines as gradient_cosines
from uiat.analyse.studies.alignment import draw_alignment, say_alignment
from uiat.analyse.studies.attention import centre_share
from uiat.analyse.studies.attention import draw as draw_attention
from uiat.analyse.studies.attention import measure as measure_attention
from uiat.analyse.studies.attention import sentences as say_attention
from uiat.analyse.studies.confidence_gap import by_loss, measure_gap
from uiat.analyse.studies.inverse_gallery import cosines, moved
from uiat.analyse.studies.inverse_gallery import draw as draw_gallery
from uiat.analyse.studies.inverse_gallery import sentences as say_gallery
from uiat.analyse.studies.landscape import draw_landscape, measure_landscape
from uiat.analyse.studies.misaligned import measure as measure_misaligned
from uiat.analyse.studies.misaligned import sentences as say_misaligned
from uiat.analyse.studies.strength import crossings, draw_strength, measure_strength, say_strength
from uiat.analyse.study import Context, StudyOptions, StudyRun


@dataclass
class Known(Context):
    """A context whose models and images are given, by the labels of the subjects."""

    models: dict[str, nn.Module] = field(default_factory=dict)
    data: tuple = ()

    def model(self, subject, which=None):
        return self.models[subject.label].eval()

    def images(self, subject, split="test", *, n=None):
        self.sizes[split] = len(self.data[0])
        return self.data


def known(models, x, y, *, epsilon=0.1, **asked):
    labels = [StudyRun(name, Path(name), Run()) for name in models]
    asked = StudyOptions(threat=f"Linf:{epsilon}", **{"attack": "pgd-5", **asked})
    return Known(labels, asked, models=models, data=(x, y))


class Always(nn.Module):
    """The same logits for every image, through a gradient of zero."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


class Centre(nn.Module):
    """Two classes, told apart by the middle pixels alone."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        score = self.scale * (x[:, :, 2:6, 2:6].mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-score, score], dim=1)


# strength


def test_accuracy_falls_where_the_distances_say_and_strength_0_is_clean():
    model, x, y = helpers.at_distances()
    sure = Always([1.0, 0.0])  # wrong on all
    context = known({"line": model, "wrong": sure}, x, y, epsilons="0,0.1,0.2,0.3")
    data = measure_strength(context)
    assert data["runs"]["line"]["accuracy"] == [0.6, 0.4, 0.2, 0.0]
    assert data["runs"]["line"]["accuracy"][0] == (model(x).argmax(1) == y).double().mean().item()
    assert data["runs"]["wrong"]["accuracy"] == [0.0] * 4
    assert data["pairs"] == [{"runs": ["line", "wrong"], "crossings": [], "ahead": [0, 0, 0, 0]}]
    assert "No two curves cross." in say_strength(data)


def test_any_attack_of_an_evaluation_can_be_used_for_strength():
    model, x, y = helpers.at_distances()
    data = measure_strength(known({"line": model}, x, y, epsilons="0,0.1,0.2", attack="apgd-ce"))
    assert data["runs"]["line"]["accuracy"] == [0.6, 0.4, 0.2]


def test_the_radii_reach_twice_the_threat_models():
    model, x, y = helpers.at_distances()
    assert measure_strength(known({"line": model}, x, y))["strengths"] == pytest.approx([i * 0.025 for i in range(9)])


def test_curves_that_cross_say_where_and_who_is_ahead_beyond_chance():
    x = torch.full((200, 1, 8, 8), 0.5)
    half = torch.cat([torch.ones(32), -torch.ones(32)])
    x[:160] += 0.03 * half.view(1, 1, 8, 8)  # 160 images stand up to 0.03; the rest never
    x[160:] -= 0.03 * half.view(1, 1, 8, 8)
    steady = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))  # half of the images right, whatever the attack
    with torch.no_grad():
        steady[1].weight.zero_()
        steady[1].bias.copy_(torch.tensor([0.0, 1.0]))
    y = torch.ones(200, dtype=torch.int64)
    y[100:160] = 0  # ... which the first model gets wrong, and the second too
    context = known({"line": helpers.Binary(half), "steady": steady}, x, y, epsilons="0,0.02,0.04,0.06")
    data = measure_strength(context)
    assert data["runs"]["line"]["accuracy"] == [0.5, 0.5, 0.0, 0.0]
    assert data["runs"]["steady"]["accuracy"] == [0.7] * 4
    assert data["pairs"][0]["ahead"] == [-1] * 4


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ([0.9, 0.5, 0.1], [0.8, 0.6, 0.3], [0.5]),
        ([0.9, 0.5, 0.1], [0.8, 0.4, 0.0], []),
        ([0.9, 0.5, 0.5, 0.1], [0.8, 0.5, 0.5, 0.3], [2.0]),  # level for a while
        ([0.9, 0.5, 0.9], [0.9, 0.5, 0.8], []),  # meets and never crosses
        ([0.9, 0.3, 0.9], [0.8, 0.4, 0.8], [0.5, 1.5]),
        ([0.5, 0.5], [0.5, 0.5], []),
    ],
)
def test_crossings(a, b, where):
    assert crossings(list(map(float, range(len(a)))), a, b) == pytest.approx(where)
    assert crossings(list(map(float, range(len(a)))), b, a) == pytest.approx(where)


def test_radii_are_written_as_people_write_them_and_the_axis_fits_the_curves():
    accuracy = {"a": [0.40, 0.30, 0.10], "b": [0.35, 0.32, 0.20]}
    runs = {name: {"n": 100, "accuracy": values} for name, values in accuracy.items()}
    strengths = [0.0, 8 / 255, 16 / 255]
    pairs = [{"runs": ["a", "b"], "crossings": crossings(strengths, *accuracy.values()), "ahead": [1, 0, -1]}]
    data = {"strengths": strengths, "norm": "Linf", "epsilon": 8 / 255, "runs": runs, "pairs": pairs}
    said = " ".join(say_strength(data))
    assert "Accuracy at 8/255: b 32.0 %" in said
    assert "cross at 5.7/255: a is ahead beyond chance at 0; b is ahead beyond chance at 16/255" in said
    (axes,) = draw_strength(data).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "4/255", "8/255", "12/255", "16/255"]
    assert 0.4 < axes.get_ylim()[1] < 0.5
    (axes,) = draw_strength(data | {"norm": "L2"}).axes
    assert "cross at 0.022:" in " ".join(say_strength(data | {"norm": "L2"}))


# confidence-gap


def test_the_halves_are_cut_by_loss():
    loss = torch.rand(101)
    halves = by_loss(loss)
    low, high = (halves[name][0] for name in ("low", "high"))
    assert loss[low].max() <= loss[high].min()
    assert sorted(torch.cat([low, high]).tolist()) == list(range(101))
    assert (len(low), len(high)) == (50, 51)
    assert halves["low"][1] == pytest.approx(loss[low].mean().item())


def test_the_gap_of_a_model_whose_distances_are_known():
    model, x, y = helpers.at_distances()
    data = measure_gap(known({"line": model}, x, y, epsilons="-0.2,-0.1,0,0.1,0.2"))
    run = data["runs"]["line"]
    # The two furthest on the right side have the lowest loss.
    assert run["low"]["accuracy"] == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert run["high"]["accuracy"] == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    clean = (model(x).argmax(1) == y).double().mean().item()
    assert (2 * run["low"]["accuracy"][2] + 3 * run["high"]["accuracy"][2]) / 5 == pytest.approx(clean)
    assert run["low"]["mean_loss"] < run["high"]["mean_loss"]


# inverse-gallery


def test_perturbations_are_like_themselves_and_unlike_their_opposites():
    z = torch.randn(3, 1, 8, 8)
    z = torch.cat([z, z[:1], -z[:1], torch.zeros(1, 1, 8, 8)])
    found = cosines(z)
    assert found.diagonal()[:5].tolist() == pytest.approx([1.0] * 5)
    assert found[0, 3].item() == pytest.approx(1.0)
    assert found[0, 4].item() == pytest.approx(-1.0)
    assert found[5].abs().max() == 0
    assert found[0, 1].item() == pytest.approx(
        torch.cosine_similarity(z[0].flatten().double(), z[1].flatten().double(), dim=0).item()
    )


def test_a_strong_perturbation_draws_every_image_to_its_class_and_none_draws_none():
    model = helpers.Blocks(4)
    x, y = helpers.interior(40), torch.arange(40) % 4
    context = known({"blocks": model}, x, y)
    subject = context.subjects[0]
    z = -5 * model.w.sign().view(4, 1, 8, 8)  # clipped to [0, 1], it paints the class over the image
    drawn = moved(context, subject, z)
    assert drawn["drawn"] == 1.0
    assert drawn["own"] == 1.0
    assert [max(row) for row in drawn["table"]] == [1.0] * 4
    assert all(row[c] > 0 for c, row in enumerate(drawn["shift"]))
    still = moved(context, subject, torch.zeros_like(z))
    assert still["drawn"] == pytest.approx(still["drawn_before"])
    assert still["own"] == still["clean"]
    assert torch.tensor(still["shift"]).abs().max() == 0
    for c, row in enumerate(still["table"]):
        natural = model(x[y != c]).argmax(1)
        assert row == pytest.approx([(natural == k).double().mean().item() for k in range(4)], abs=1e-6)


def test_classes_have_their_names_and_pictures_their_scale():
    table = [[0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.1]]
    run = {"shift": table, "clean": 0.5, "own": 0.6, "loss": 1.0, "own_loss": 0.9, "drawn": 0.2, "drawn_before": 0.1}
    data = {"classes": ["cat", "dog", "ship"], "from": "a", "norm": "Linf", "radius": 4 / 255, "shape": [3, 3, 8, 8]}
    data |= {"cosine": [[1.0, 0.5, 0.0], [0.5, 1.0, -0.5], [0.0, -0.5, 1.0]], "runs": {"a": run}}
    data["pictures"] = [[[0.0] * 8] * 24] * 3
    said = " ".join(say_gallery(data))
    assert "most for class dog" in said
    assert "classes cat and dog (+0.50), least those of dog and ship (-0.50)" in said
    figure = draw_gallery(data)
    assert "magnified 31.9 times" in figure.subfigs[0].get_suptitle()
    assert "4/255" in figure.subfigs[0].get_suptitle()
    for part in figure.subfigs[1:]:
        assert [tick.get_text() for tick in part.axes[0].get_xticklabels()] == data["classes"]


# misaligned


def test_the_pull_is_1_for_a_model_that_never_leaves_its_wrong_class():
    x, y = torch.rand(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    stuck, unsure = Always([0.0, 60.0]), Always([0.0, 1.0])
    data = measure_misaligned(known({"stuck": stuck, "unsure": unsure}, x, y))
    for kind in ("natural", "adversarial", "inverse"):
        found = data["runs"]["stuck"][kind]
        assert [found[name] for name in ("p_wrong", "is_wrong", "pull")] == pytest.approx([1.0, 1.0, 1.0])
        assert (found["is_true"], round(found["p_true"], 6)) == (0.0, 0.0)
    assert data["runs"]["stuck"]["misclassified"] == 4
    assert data["runs"]["unsure"]["adversarial"]["pull"] == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert data["common"]["n"] == 4
    assert data["common"]["pull"]["stuck"] == pytest.approx(1.0)
    assert "Runs with fewer than 30 misclassified images say little." in say_misaligned(data)


def test_a_model_that_can_be_helped_is_right_on_inverse_examples():
    model, x, y = helpers.at_distances()
    data = measure_misaligned(known({"line": model}, x, y, epsilon=0.2))["runs"]["line"]
    assert data["misclassified"] == 2  # 0.05 and 0.15 from the border; half the radius brings the first across
    assert data["natural"]["is_wrong"] == 1.0
    assert data["adversarial"]["is_wrong"] == 1.0
    assert data["inverse"]["is_true"] == 0.5
    assert data["inverse"]["pull"] < data["natural"]["pull"] < data["adversarial"]["pull"]


def test_a_model_without_mistakes_has_nothing_to_see():
    model, x, y = helpers.at_distances()
    data = measure_misaligned(known({"line": model}, x[:3], y[:3]))
    assert data["runs"]["line"]["adversarial"]["pull"] is None
    assert "gets every image right" in say_misaligned(data)[0]


# landscape, alignment


def test_the_loss_rises_along_the_adversarial_direction_more_than_along_a_random_one():
    model, x, y = helpers.at_distances()
    run = measure_landscape(known({"line": model}, x, y))["runs"]["line"]
    loss = nn.functional.cross_entropy(model(x), y).item()
    zero, one = 4, 8
    assert run["adversarial"][zero] == run["random"][zero] == pytest.approx(loss)
    assert run["adversarial"] == sorted(run["adversarial"])
    assert run["adversarial"][one] > run["random"][one]
    # A step of 0.1 against the border costs 0.1 * 64 of the difference of the logits.
    worst = nn.functional.cross_entropy(model(x) + torch.tensor([3.2, -3.2]), y).item()
    assert run["adversarial"][one] == pytest.approx(worst, rel=1e-4)
    assert run["surface"][5][5] == pytest.approx(loss, abs=1e-6)
    assert run["surface"][5][10] == pytest.approx(worst, rel=1e-4)


def test_one_model_does_not_flatten_the_others():
    """A standard model's loss is many times that of robust ones."""
    grid = [[float(i + j) for i in range(11)] for j in range(11)]
    runs = {
        name: {"adversarial": [top * (i + 1) for i in range(13)], "random": [1.0] * 13, "surface": grid}
        for name, top in (("robust", 0.2), ("standard", 20.0), ("other", 0.3))
    }
    data = {"steps": [i / 4 for i in range(-4, 9)], "grid": [i / 5 for i in range(-5, 6)], "runs": runs}
    first, second, third, none = draw_landscape(data).axes[:4]
    assert first.get_ylim()[1] < 3 < 200 < second.get_ylim()[1]
    assert third.get_title() == "other"
    assert not none.axison


def test_gradients_of_a_linear_model_agree_and_those_of_a_folded_one_do_not():
    model, x, y = helpers.at_distances()
    assert gradient_cosines(model, x, y, Linf(0.2), seed=0).tolist() == pytest.approx([1.0] * 5, abs=1e-5)

    grey = torch.full((20, 1, 8, 8), 0.501)
    cosine = gradient_cosines(helpers.Folded(), grey, torch.zeros(20, dtype=torch.int64), Linf(0.2), seed=0)
    assert cosine.mean().abs() < 0.1  # half of the pixels land on either side
    assert torch.equal(
        cosine, gradient_cosines(helpers.Folded(), grey, torch.zeros(20, dtype=torch.int64), Linf(0.2), seed=0)
    )


def test_a_collapse_between_the_weights_that_were_kept_is_said_and_drawn():
    rows = [
        {"epoch": e, "weights": [w], "mean": m, "deviation": 0.1} for e, w, m in ((4, "best", 0.8), (10, "last", 0.7))
    ]
    recorded = [[1, 0.9], [4, 0.8], [6, 0.75], [7, 0.1], [10, 0.7]]
    run = {"n": 100, "weights": rows, "ended": 10}
    data = {"runs": {"a": run | {"recorded": recorded}, "b": run | {"recorded": []}}}
    said = " ".join(say_alignment(data))
    assert "between 0.900 (epoch 1) and 0.100 (epoch 7), with a fall from 0.750 to 0.100 from epoch 6 to 7" in said
    assert "Of b no other epoch is known" in said
    (axes,) = draw_alignment(data).axes
    drawn = [(list(line.get_xdata()), line.get_linestyle()) for line in axes.lines]
    assert ([1, 4, 6, 7, 10], "-") in drawn
    assert drawn.count(([4, 10], "None")) == 2  # at their own epochs, and nothing claimed of those between
    data["runs"]["a"]["recorded"] = []
    (axes,) = draw_alignment(data).axes  # a row a run: at the same epochs they would hide each other
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axes.texts] == ["epoch 4", "epoch 10"] * 2


# attention


def test_saliency_is_where_the_model_looks():
    middle, corners = torch.zeros(2, 1, 8, 8), torch.ones(2, 3, 8, 8)
    middle[..., 2:6, 2:6] = -1.0
    corners[..., 2:6, 2:6] = 0.0
    assert centre_share(middle).tolist() == [1.0, 1.0]
    assert centre_share(corners).tolist() == [0.0, 0.0]
    assert centre_share(torch.zeros(1, 1, 8, 8)).tolist() == [0.25]
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 2
    data = measure_attention(known({"centre": Centre(), "everywhere": helpers.at_distances()[0]}, x, y))
    assert data["area"] == 0.25
    for kind in ("natural", "adversarial", "inverse"):
        assert data["runs"]["centre"][kind]["centre"] == pytest.approx(1.0)
        assert data["runs"]["everywhere"][kind]["centre"] == pytest.approx(0.25)
    assert data["runs"]["centre"]["robust_train"] == data["runs"]["centre"]["robust_test"]  # the same images here


def test_what_attention_says_is_no_more_than_its_images_allow():
    kind = {"centre": 0.3, "error": 0.01, "moved": 0.0, "moved_error": 0.005}
    run = {"n": 200, "n_robust": 200, "robust_train": 0.45, "robust_test": 0.40}
    run |= {name: dict(kind) for name in ("natural", "adversarial", "inverse")}
    wide = run | {"robust_test": 0.20, "inverse": kind | {"moved": -0.02, "moved_error": 0.002}}
    data = {"area": 0.25, "runs": {"narrow": run, "wide": wide}}
    said = say_attention(data)
    assert said[0].endswith("on inverse images against natural ones +0.0 ± 0.5 points, which may be chance.")
    assert "on inverse images against natural ones -2.0 ± 0.2 points (to the background)." in said[1]
    assert "narrow +5.0 ± 4.9 points, which may be chance; wide +25.0 ± 4.5 points." in said[2]
    above, below = draw_attention(data).axes
    assert -0.02 < below.get_xlim()[0] <= 0
    assert len(above.containers) == 3
    assert len(below.containers) == 2  # error bars
