"""Names that arguments and fields have elsewhere, and the answer to one that does not exist."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from uiat.errors import ArgumentError

# Name elsewhere -> names here, the likeliest first; the first of them that exists is meant.
ALIASES: Mapping[str, Sequence[str]] = {
    "lr": ("learning_rate", "optimisation"),
    "eps": ("epsilon", "threat", "radius"),
    "epsilon": ("epsilon", "threat", "radius"),
    "eps_iter": ("step_size",),
    "alpha": ("step_size",),
    "norm": ("norm", "threat"),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "wd": ("weight_decay", "optimisation"),
    "n_epochs": ("epochs", "optimisation"),
    "epochs": ("epochs", "optimisation"),
    "num_epochs": ("epochs", "optimisation"),
    "iterations": ("iterations", "steps"),
    "steps": ("steps", "iterations"),
    "num_steps": ("steps", "iterations"),
    "nb_iter": ("steps", "iterations"),
    "n_iter": ("steps", "iterations"),
    "n_queries": ("iterations",),
    "n_restarts": ("restarts",),
    "num_restarts": ("restarts",),
    "random_start": ("start",),
    "rand_init": ("start",),
    "targeted": ("descend", "targeted"),
    "lambda": ("objective.weight", "weight"),
    "beta": ("beta", "objective.weight", "weight"),
    "lr_schedule": ("schedule",),
    "scheduler": ("schedule",),
    "opt": ("optimizer",),
    "optimizer": ("optimizer", "optimisation"),
    "optimization": ("optimisation",),
    "arch": ("model.name",),
    "architecture": ("model.name",),
    "dataset": ("data.name", "train_data", "data"),
    "images": ("x",),
    "labels": ("y",),
    "method": ("method", "objective.name", "objective"),
    "attack": ("attack", "attacks"),
    "attacks": ("evaluation.attacks", "attacks"),
    "bf16": ("precision",),
    "amp": ("precision",),
    "n_classes": ("num_classes",),
    "classes": ("num_classes", "classes"),
    "folder": ("run_dir", "folder", "out"),
}
# Arguments whose names are no nouns -> what their values name, for "unknown ... 'bets'".
NOUNS: Mapping[str, str] = {"which": "weights"}
_EXAMPLES = {"threat": 'threat="Linf:8/255"'}


def find_names(name: str, known: Sequence[str]) -> list[str]:
    """Return the known names that a name may mean, the likeliest first.

    Example:
        >>> find_names("eps", ["threat", "step_size"]), find_names("stepsize", ["threat", "step_size"])
        (['threat'], ['step_size'])
    """
    meant = [alias for alias in ALIASES.get(name.lower(), ()) if alias in known]
    return meant[:1] or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> ArgumentError:
    """Return the error for an argument that a function or class does not take.

    Args:
        owner: the function or class.
        name: the argument as it was written.
        known: every argument that it takes.

    Example:
        >>> print(unknown_argument("PGD", "eps", ["threat", "steps"]))
        PGD takes no 'eps'; did you mean threat="Linf:8/255"? It takes: threat, steps
    """
    names = list(known)
    found = find_names(name, names)
    shown = [_EXAMPLES.get(each, repr(each)) for each in found]
    hint = f"; did you mean {' or '.join(shown)}?" if found else "."
    return ArgumentError(f"{owner} takes no {name!r}{hint} It takes: {', '.join(names) or 'nothing'}")
