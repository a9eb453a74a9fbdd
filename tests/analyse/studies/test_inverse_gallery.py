"""The universal perturbations."""

from dataclasses import replace

import pytest
import torch

from support import helpers
from support.studies import known
from uiat import Linf, UniversalPerturbation
from uiat.analyse.studies.inverse_gallery import cosines, draw, measure, measure_moves, sentences


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
    subject = context.runs[0]
    z = -5 * model.w.sign().view(4, 1, 8, 8)  # clipped to [0, 1], it paints the class over the image
    drawn = measure_moves(context, subject, z)
    assert drawn["drawn"] == 1.0
    assert drawn["own"] == 1.0
    assert [max(row) for row in drawn["table"]] == [1.0] * 4
    assert all(row[c] > 0 for c, row in enumerate(drawn["shift"]))
    still = measure_moves(context, subject, torch.zeros_like(z))
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
    said = " ".join(sentences(data))
    assert "most for class dog" in said
    assert "classes cat and dog (+0.50), least those of dog and ship (-0.50)" in said
    figure = draw(data)
    assert "magnified 31.9 times" in figure.subfigs[0].get_suptitle()
    assert "4/255" in figure.subfigs[0].get_suptitle()
    for part in figure.subfigs[1:]:
        assert [tick.get_text() for tick in part.axes[0].get_xticklabels()] == data["classes"]


def test_perturbations_on_a_grid_are_shown_and_tried_at_the_size_of_the_images(tmp_path):
    x, y = helpers.interior(16), torch.arange(16) % 4
    context = known({"blocks": helpers.Blocks(4)}, x, y)
    context.runs[0] = replace(context.runs[0], folder=tmp_path)
    context.class_names = lambda run: list("abcd")
    coarse = UniversalPerturbation(Linf(0.1).noise(torch.zeros(4, 1, 2, 2)).bfloat16(), Linf(0.2), cell=4)
    coarse.save(tmp_path / "inverse.safetensors")
    found = measure(context)
    UniversalPerturbation(coarse.upsampled(), Linf(0.2)).save(tmp_path / "inverse.safetensors")
    assert found == measure(context)
    assert found["shape"] == [4, 1, 8, 8]
    assert len(set(found["pictures"][0][0])) == 2
