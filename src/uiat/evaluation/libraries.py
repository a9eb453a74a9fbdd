"""Attacks of other libraries as callables: torchattacks, foolbox, ART (adversarial-robustness-toolbox), adv-lib.

Named `library:NAME` or `library:NAME(argument=value, ...)`. The radius and the norm of the threat model are passed on
where the attack takes them; everything else is the library's default or the user's argument.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from uiat.errors import UserError, nearest
from uiat.threat import Threat

Find = Callable[[nn.Module, Tensor, Tensor], Tensor]


def library_attack(name: str, threat: Threat) -> Find:
    """Return the callable that a name stands for.

    Args:
        name: such as "torchattacks:PGD(steps=20)".
        threat: the threat model, whose radius and norm the attack is given.

    Raises:
        UserError: the library is not installed, has no such attack, or the arguments cannot be read.

    Example:
        >>> from uiat.threat import Linf
        >>> library_attack("torchattack:PGD", Linf(0.1))
        Traceback (most recent call last):
        uiat.errors.UserError: unknown library 'torchattack'; did you mean 'torchattacks'? ...
    """
    library, _, call = name.partition(":")
    if library not in LIBRARIES:
        raise nearest("library", library, LIBRARIES)
    module_name, package, adapt = LIBRARIES[library]
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise UserError(f"{name} needs {package} ({error}): pip install {package}") from None
    attack_name, arguments = parse_call(call)
    attack = getattr(module, attack_name, None)
    if not callable(attack):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise nearest(f"attack of {library}", attack_name, known)
    return adapt(attack, arguments, threat)


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Read a name and its arguments; values are numbers (fractions too), texts, True, False, None and lists of them.

    Raises:
        UserError: it is no such call.

    Example:
        >>> parse_call("PGD(steps=20, alpha=2/255)")
        ('PGD', {'steps': 20, 'alpha': 0.00784...})
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            return node.func.id, {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        pass
    raise UserError(f"{text!r} is no attack: write NAME or NAME(argument=value, ...), such as PGD(steps=20)")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return float(ast.literal_eval(node.left)) / float(ast.literal_eval(node.right))
    return ast.literal_eval(node)


def _known(attack: Callable[..., Any], arguments: Mapping[str, Any], **offered: Any) -> dict[str, Any]:
    """Return the arguments, with those offered that the attack takes and the user did not set."""
    try:
        taken = inspect.signature(attack).parameters
    except ValueError:
        taken = {}  # type: ignore[assignment]
    return {name: value for name, value in offered.items() if name in taken} | dict(arguments)


def _torchattacks(attack: Callable[..., Any], arguments: Mapping[str, Any], threat: Threat) -> Find:
    options = _known(attack, arguments, eps=float(threat.epsilon), norm=threat.norm)

    def find(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv: Tensor = attack(model, **options)(x, y)
        return x_adv

    return find


def _foolbox(attack: Callable[..., Any], arguments: Mapping[str, Any], threat: Threat) -> Find:
    foolbox: Any = import_module("foolbox")  # whose package names its classes in no way that type checkers follow

    def find(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        classifier = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        _, clipped, _ = attack(**arguments)(classifier, x, y, epsilons=float(threat.epsilon))
        x_adv: Tensor = clipped
        return x_adv

    return find


class _Cast(nn.Module):
    """The model on images of its own dtype: ART computes in float64 now and then."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, k) of images."""
        logits: Tensor = self.model(x.to(self.dtype))
        return logits


def _art(attack: Callable[..., Any], arguments: Mapping[str, Any], threat: Threat) -> Find:
    norm = {"Linf": float("inf"), "L2": 2, "L1": 1}[threat.norm]
    options = _known(attack, arguments, eps=float(threat.epsilon), norm=norm, verbose=False)

    def find(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            _Cast(model, x.dtype).eval(),
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=model(x[:1]).shape[1],
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )
        found = attack(classifier, **options).generate(x.cpu().numpy(), y=y.cpu().numpy())
        return x.new_tensor(found)

    return find


def _advlib(attack: Callable[..., Any], arguments: Mapping[str, Any], threat: Threat) -> Find:
    radius = float(threat.epsilon)
    options = _known(attack, arguments, **{"ε": radius, "eps": radius, "norm": float(threat.norm[1:])})

    def find(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x_adv: Tensor = attack(model, x, y, **options)
        return x_adv

    return find


# By the name before the colon: the module with the attacks, the package to install, and how its attacks are called.
LIBRARIES: dict[str, tuple[str, str, Callable[[Callable[..., Any], Mapping[str, Any], Threat], Find]]] = {
    "torchattacks": ("torchattacks", "torchattacks", _torchattacks),
    "foolbox": ("foolbox.attacks", "foolbox", _foolbox),
    "art": ("art.attacks.evasion", "adversarial-robustness-toolbox", _art),
    "advlib": ("adv_lib.attacks", "adv-lib", _advlib),
}
