import torch

from uiat.evaluation.selfcheck import model_checks


def test_gradients_that_are_zero_at_one_point_are_a_note():
    gradient = torch.ones(50, 1, 2, 2)
    assert model_checks.check_zero_gradients(gradient) is None
    gradient[0] = 0
    assert model_checks.check_zero_gradients(gradient).severity == "note"
    gradient[:10] = float("nan")
    assert model_checks.check_zero_gradients(gradient).severity == "do not believe"
    assert "zero or NaN at 10 of 50" in model_checks.check_zero_gradients(gradient).reason


def test_finite_differences_below_what_float32_resolves_say_nothing():
    promised, wrong = torch.full((50,), 1e-5), torch.zeros(50)
    assert model_checks.check_gradient_direction(promised, wrong, resolution=torch.full((50,), 1e-6)) is None
    assert model_checks.check_gradient_direction(promised, wrong, resolution=torch.full((50,), 1e-8)) is not None
    assert (
        model_checks.check_gradient_direction(promised * float("nan"), wrong, resolution=torch.full((50,), 1e-8))
        is None
    )


def test_errors_of_rounding_are_no_randomness():
    logits = torch.randn(20, 10)
    assert model_checks.check_randomness(torch.stack([logits, logits * (1 + 1e-6)])) is None
    assert model_checks.check_randomness(torch.stack([logits, logits + 0.01])) is not None
    assert model_checks.check_batch_dependence(logits, logits.bfloat16().float()) is None
    assert model_checks.check_batch_dependence(logits, logits + 0.2) is not None
