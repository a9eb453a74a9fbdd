import numpy as np
import pytest
import torch
from scipy import stats

from uiat.attacks.random_numbers import keys
from uiat.evaluation.corruptions import corrupt, noise
from uiat.evaluation.corruptions.kinds import IMAGENET_C


def test_noise_has_the_published_variance():
    x, key = torch.full((8, 3, 32, 32), 0.5), keys(0, torch.arange(8))
    for (deviation,), (photons,) in zip(IMAGENET_C["gaussian_noise"], IMAGENET_C["shot_noise"], strict=True):
        assert (noise.gaussian_noise(x, (deviation,), key) - x).std().item() == pytest.approx(deviation, rel=0.03)
        shot = noise.shot_noise(x, (photons,), key)
        assert shot.mean().item() == pytest.approx(0.5, abs=0.01)
        assert shot.var().item() == pytest.approx(0.5 / photons, rel=0.05)
        assert (shot * photons).allclose((shot * photons).round(), atol=1e-3)


def test_impulses_are_half_salt_half_pepper():
    x = torch.full((8, 3, 32, 32), 0.5)
    result = corrupt(x, "impulse_noise", 5)
    assert set(result.unique().tolist()) == {0.0, 0.5, 1.0}
    for value in (0.0, 1.0):
        assert (result == value).double().mean().item() == pytest.approx(0.035, abs=0.004)


def test_poisson_quantiles():
    rate = np.concatenate([[0, 1e-4, 0.01, 0.1, 0.5, 0.9], np.arange(1, 30, 0.7), [55.3, 60, 123.4, 500]])
    tail = 2.0**-25 * np.arange(1, 20, 2)
    rate, u = (a.ravel() for a in np.meshgrid(rate, np.concatenate([tail, 1 - tail, np.linspace(1e-4, 1 - 1e-4, 101)])))
    ours = noise.poisson(torch.tensor(rate), torch.tensor(u)).numpy()
    np.testing.assert_array_equal(ours, stats.poisson.ppf(u, rate))
