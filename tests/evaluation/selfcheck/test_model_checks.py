import pytest
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


def confused(matrix: torch.Tensor, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw labels, and predictions of them by the rows of a confusion matrix."""
    torch.manual_seed(seed)
    y = torch.randint(0, len(matrix), (n,))
    return torch.multinomial(matrix[y], 1).flatten(), y


def similar_classes(classes: int, accuracy: float) -> torch.Tensor:
    """A model that takes each class for its neighbours, of which one is predicted more often."""
    apart = (torch.arange(classes)[:, None] - torch.arange(classes)).abs()
    liked = torch.linspace(0.7, 1.4, classes) / (1 + apart)
    return accuracy * torch.eye(classes) + (1 - accuracy) * liked / liked.sum(1, keepdim=True)


@pytest.mark.parametrize("classes", [2, 3, 10, 12, 100])
@pytest.mark.parametrize("accuracy", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_a_model_that_mistakes_classes_for_others_is_no_other_order(classes, accuracy):
    matrix = similar_classes(classes, max(accuracy, 1 / classes))
    for seed in range(20):
        predicted, y = confused(matrix, max(128, 4 * classes), seed)
        assert model_checks.check_class_order(predicted, y, classes=classes) is None


@pytest.mark.parametrize("label", [0, 1, 9])
def test_a_model_that_names_one_class_alone_is_no_other_order(label):
    y = torch.cat([torch.zeros(90), torch.arange(38) % 10]).long()[torch.randperm(128)]
    assert model_checks.check_class_order(torch.full((128,), label), y, classes=10) is None


ORDERS = {
    "words": torch.tensor(sorted(range(12), key=str)),
    "numbers": torch.tensor(sorted(range(12), key=str)).argsort(),
    "reversed": torch.arange(12).flip(0),
    "shifted": (torch.arange(12) + 1) % 12,
    "two swapped": torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 9, 8, 11, 10]),
    "many classes as words": torch.tensor(sorted(range(1000), key=str)),
    "swapped": torch.tensor([1, 0]),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("accuracy", [0.6, 1.0])
def test_labels_in_another_order_are_found(name, accuracy):
    order, classes = ORDERS[name], len(ORDERS[name])
    predicted, y = confused(similar_classes(classes, accuracy), max(200, 4 * classes), 0)
    finding = model_checks.check_class_order(predicted, order[y], classes=classes)
    assert finding.severity == "do not believe"
    as_words = name in ("words", "numbers", "many classes as words")
    assert ("sorted as words (0, 1, 10, 1" in finding.reason) == as_words
    assert ("compare the names of the classes" in finding.reason) != as_words
    right = int((predicted == order[y]).sum())
    assert finding.reason.startswith(f"{right} of {len(y)} images are classified correctly, and ")
