"""Save and load weights and training state as safetensors files: written atomically, nothing in them is unpickled."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from uiat import models
from uiat.checks import checked
from uiat.errors import UserError, nearest
from uiat.formatting import parse_threat_record, threat_record
from uiat.runs.config_file import CUSTOM, read_settings, threat_of
from uiat.runs.own_files import AllowOwnCode, check_own_code
from uiat.runs.reader import CONFIG_FILE, WEIGHTS_FILES, is_number
from uiat.system.manifest import check_file, write_recorded_tensors
from uiat.system.tensor_files import read_tensors
from uiat.threat import Threat

WEIGHTS, STATE = "uiat.weights", "uiat.state"
Which = Literal["best", "last"]


def _are_numbers(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(map(is_number, value)))


# What may stand in the spec of a saved model, and which values: all that describes its architecture, and nothing that
# would fetch weights.
_SPEC: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "num_classes": lambda value: type(value) is int,
    "image_shape": lambda value: isinstance(value, list | tuple) and [type(side) for side in value] == [int] * 3,
    "width": lambda value: value is None or is_number(value),
    "activation": lambda value: isinstance(value, str),
    "mean": _are_numbers,
    "std": _are_numbers,
}


def save_weights(path: Path, model: nn.Module, *, spec: Mapping[str, Any], threat: Threat | None, **facts: Any) -> None:
    """Write a model's weights, with the arguments that build it again and the threat model it was trained for.

    Args:
        path: the .safetensors file to write.
        model: the model whose state dict is written.
        spec: the arguments of `models.build`: name, num_classes, image_shape, width, activation, ...
        threat: the threat model of the training; None for standard training.
        facts: further JSON values to keep beside the weights, such as the epoch.

    Example:
        >>> import tempfile
        >>> spec = {"name": "small-cnn", "num_classes": 10, "image_shape": [1, 8, 8], "width": 4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(Path(folder) / "best.safetensors", models.build(**spec), spec=spec, threat=None)
        ...     load(folder).training
        False
    """
    text = None if threat is None else threat_record(threat, exact=True)
    write_recorded_tensors(path, model.state_dict(), {"kind": WEIGHTS, "model": dict(spec), "threat": text, **facts})


@checked
def load(
    run: str | Path, which: Which = "best", *, model: nn.Module | None = None, own_code: AllowOwnCode = False
) -> nn.Module:
    """Load the trained model of a run folder, in eval mode on the CPU; `model.threat` is what it was trained for.

    Args:
        run: a run folder, or a weights file of one.
        which: "best" for the weights of the epoch with the best metric on held-out training data, or "last".
        model: a module to load the weights into, for a model that `models.build` cannot name.
        own_code: True to let the run name a file.py:function or package.module:function that builds the model. That
            runs the code, so allow it only if you trust the folder. "changed" runs it as it is now, although it is not
            what the run began with.

    Raises:
        UserError: no such run, a damaged or foreign file, weights that do not fit the model.

    Example:
        >>> load("missing-run")
        Traceback (most recent call last):
        uiat.errors.UserError: no run folder missing-run
    """
    path = Path(run)
    if which not in get_args(Which):
        raise nearest("weights", which, get_args(Which))
    if not path.exists():
        raise UserError(f"no run folder {path}")
    if path.is_dir():
        path = path / WEIGHTS_FILES[which]
    tensors, meta = read_weights(path)
    threat = None if meta.get("threat") is None else parse_threat_record(meta["threat"], path)
    if model is None:
        with _refuse_damage(path):
            if own_code and models.is_own_code(name := str(meta["model"]["name"])):
                check_own_code(path.parent, name, allowed=own_code)
            model = build(dict(meta["model"]), own_code=bool(own_code))
    restore(model, tensors, source=path)
    model.threat = threat  # type: ignore[assignment]
    return model.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weights file and what it says of its model, held against the manifest and the settings beside it.

    Raises:
        UserError: no such file, a damaged or foreign one, weights that are not finite, or of another model or threat
            model than config.yaml beside it names.

    Example:
        >>> read_weights(Path("missing-run/best.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run has no best.safetensors: no epoch of it has ended yet, or it is not a run ...
    """
    if not path.exists():
        check_file(path)
        raise UserError(f"{path.parent} has no {path.name}: no epoch of it has ended yet, or it is not a run folder")
    tensors, meta = read_tensors(path)
    check_file(path)
    if meta.get("kind") != WEIGHTS or not isinstance(meta.get("model"), dict):
        raise UserError(f"{path} does not hold the weights of a uiat run")
    _check_spec(path, meta["model"])
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path} is damaged: {name} holds values that are not finite (NaN or infinity)")
    if (path.parent / CONFIG_FILE).is_file():
        _check_settings(path, meta, read_settings(path.parent))
    return tensors, meta


def _check_spec(path: Path, spec: Mapping[str, Any]) -> None:
    """Refuse a description of a model that lacks what it is built by, or has more than that."""
    whole = dict.fromkeys(("name", "num_classes", "image_shape")) | dict(spec)
    if fault := next((name for name, value in whole.items() if name not in _SPEC or not _SPEC[name](value)), None):
        raise UserError(
            f"{path} is damaged or was written by another version: {fault!r} of its model is missing, unknown or "
            "impossible"
        )


def _check_settings(path: Path, meta: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    """Refuse weights of another model or threat model than the settings beside them name."""
    spec, model, trained = meta["model"], tree["model"], threat_of(tree)
    threat = None if meta.get("threat") is None else parse_threat_record(meta["threat"], path)
    usual = {"width": None, "activation": "relu"}
    names = ("name",) if spec.get("name") == CUSTOM else ("name", "width", "activation")
    pairs = [(name, spec.get(name, usual.get(name)), model.get(name, usual.get(name))) for name in names]
    there, here = ("none" if each is None else threat_record(each, exact=True) for each in (threat, trained))
    pairs.append(("threat model", there, here))
    for name, there, here in pairs:
        if there != here:
            raise UserError(
                f"{path} and {path.parent / CONFIG_FILE} are of different runs: {name} is {there!r} in the weights and "
                f"{here!r} in the settings"
            )


def build(spec: Mapping[str, Any], *, own_code: bool = False) -> nn.Module:
    """Build the untrained model that a saved spec describes; code that the spec names runs only if it is allowed.

    Example:
        >>> build({"name": "mine.py:net", "num_classes": 10, "image_shape": [1, 8, 8]})
        Traceback (most recent call last):
        uiat.errors.UserError: the run's model is code, 'mine.py:net': allow it with own_code=True (--own-code) ...
    """
    name = str(spec.get("name"))
    if models.is_own_code(name) and not own_code:
        raise UserError(f"the run's model is code, {name!r}: allow it with own_code=True (--own-code) or pass model=")
    if name == "custom":
        raise UserError("the run's model was passed to fit() and cannot be built by name: pass model= (--model NAME)")
    return models.build(**{**spec, "image_shape": tuple(spec["image_shape"])})


def restore(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Load a state dict into a module; every name and shape must fit.

    Example:
        >>> restore(nn.Linear(1, 1), {}, source=Path("a.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: the weights in a.safetensors do not fit the model: Missing key(s) ...
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        shown = reason if len(reason) <= 300 else f"{reason[:300]} ..."
        raise UserError(f"the weights in {source} do not fit the model: {shown}") from None


def restore_buffer(module: nn.Module, name: str, value: Tensor, *, source: Path) -> None:
    """Put a tensor from a file into a buffer of a module; its shape must fit.

    Example:
        >>> restore_buffer(nn.BatchNorm1d(2), "running_mean", torch.zeros(3), source=Path("a.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: a.safetensors does not fit the run: it has shape (3,) and not (2,)
    """
    buffer = module.get_buffer(name)
    if value.shape != buffer.shape:
        shapes = f"it has shape {tuple(value.shape)} and not {tuple(buffer.shape)}"
        raise UserError(f"{source} does not fit the run: {shapes}")
    buffer.copy_(value)


def save_state(
    path: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    ended: bool = False,
) -> None:
    """Write all that training needs to resume bit for bit: modules, optimiser, random states, position.

    Args:
        path: the .safetensors file to write.
        modules: the modules whose state dicts are written, by name: the model, its average, the objective's state.
        optimizer: the optimiser whose state and parameter groups are written.
        tensors: further tensors, such as running sums.
        meta: further JSON values, such as epoch, step and history.
        ended: True if nothing is left to train; the manifest says so too.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "checkpoint.safetensors"
        ...     save_state(path, modules={"model": model}, optimizer=optimizer, tensors={}, meta={"epoch": 3})
        ...     load_state(path, modules={"model": model}, optimizer=optimizer)[1]["epoch"]
        3
    """
    flat = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    flat |= {f"tensors/{key}": value for key, value in tensors.items()}
    flat |= {f"random/{key}": value for key, value in _random_states(_device(optimizer)).items()}
    saved = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in saved["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                flat[f"optimizer/{index}/{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    facts = {"kind": STATE, "meta": dict(meta), "groups": saved["param_groups"], "scalars": scalars}
    write_recorded_tensors(path, flat, facts, ended=ended)


def load_state(
    path: Path, *, modules: Mapping[str, nn.Module], optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restore what `save_state` wrote, random states included, and return its further tensors and JSON values.

    Raises:
        UserError: a damaged file, or one that does not fit this run.

    Example:
        >>> load_state(Path("missing.safetensors"), modules={}, optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.1))
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing.safetensors
    """
    flat, facts = read_tensors(path)
    check_file(path)
    if facts.get("kind") != STATE:
        raise UserError(f"{path} is not a training checkpoint")
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = tensor
    for name, module in modules.items():
        restore(module, groups.get(name, {}), source=path)
    with _refuse_damage(path):
        _restore_optimizer(optimizer, groups.get("optimizer", {}), facts)
        _set_random_states(groups["random"], _device(optimizer))
        return groups.get("tensors", {}), dict(facts["meta"])


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Load the optimiser's state and groups, each buffer in the memory format of its parameter.

    Fused optimisers walk a parameter and its buffers side by side in memory: another size or order there would update
    the wrong entries, in silence.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in facts["scalars"].items()}
    for key, tensor in tensors.items():
        index, _, field = key.partition("/")
        parameter = parameters[int(index)]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise ValueError(f"optimizer/{key} has shape {tuple(tensor.shape)}, not {tuple(parameter.shape)}")
        if tensor.ndim:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": facts["groups"]})


@contextmanager
def _refuse_damage(path: Path) -> Iterator[None]:
    """Inside, an error that the contents of a file cause becomes a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} is damaged or was written by another version ({type(error).__name__}: {reason})"
        ) from error


def _device(optimizer: Optimizer) -> torch.device:
    """Return the device that the weights are on."""
    device: torch.device = optimizer.param_groups[0]["params"][0].device
    return device


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the CPU's generator and of the device's own; they are the same in all processes."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
