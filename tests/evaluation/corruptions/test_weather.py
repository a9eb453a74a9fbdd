import torch

from uiat.attacks.random_numbers import keys
from uiat.evaluation.corruptions import corrupt, weather
from uiat.evaluation.corruptions.kinds import CIFAR_10_C


def test_brightness_adds_to_the_value():
    x = torch.rand(4, 3, 8, 8)
    for severity, (amount,) in enumerate(CIFAR_10_C["brightness"], 1):
        result = corrupt(x, "brightness", severity)
        torch.testing.assert_close(result.amax(dim=1), (x.amax(dim=1) + amount).clamp(max=1))
        # Hue and saturation stay: the channels keep their proportions.
        torch.testing.assert_close(result * x.amax(1, keepdim=True), x * result.amax(1, keepdim=True))
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(corrupt(grey, "brightness", 2), (grey + 0.1).clamp(max=1))
    assert corrupt(torch.zeros(1, 3, 4, 4), "brightness", 5).allclose(torch.tensor(0.3))


def test_fog_never_exceeds_the_brightest_value():
    x = 0.7 * torch.rand(4, 3, 32, 32)
    assert (corrupt(x, "fog", 5).flatten(1).amax(1) <= x.flatten(1).amax(1) + 1e-6).all()
    clouds = weather.plasma((32, 32), 2.0, keys(0, torch.arange(4)))
    assert clouds.flatten(1).amin(1).eq(0).all()
    assert clouds.flatten(1).amax(1).eq(1).all()
