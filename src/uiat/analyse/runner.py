"""Name every study, and run one.

The module is not called `run`, since `uiat.analyse.run` is the function.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from uiat import evaluation
from uiat.analyse.measurements import find_repeats
from uiat.analyse.result import Result, check_free, write
from uiat.analyse.study import Context, Data, Study, StudyOptions, open_runs
from uiat.checks import checked
from uiat.errors import UserError, nearest
from uiat.formatting import threat_option, threat_text
from uiat.runs.methods import method_name
from uiat.runs.settings import read_plain
from uiat.system.environment import describe_environment
from uiat.system.surroundings import neutral_surroundings

# In the order of --help; each is a module of `uiat.analyse.studies` of the same name, with underscores.
_NAMES = (
    "confidence-gap",
    "strength",
    "overfitting",
    "one-off",
    "ablation",
    "tradeoff",
    "inverse-gallery",
    "universal",
    "unseen",
    "misaligned",
    "landscape",
    "alignment",
    "attention",
    "cost",
)
STUDIES: dict[str, Study] = {
    name: import_module(f"uiat.analyse.studies.{name.replace('-', '_')}").STUDY for name in _NAMES
}


@checked
@neutral_surroundings()
def run(
    study: str,
    runs: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Result:
    """Run one of the paper's studies on run folders.

    Args:
        study: name of the study, a key of `STUDIES`.
        runs: run folders; an ablation that trains its own needs none.
        out: folder for STUDY.json, .svg, .png, .pdf and .md; by default nothing is written.
        n: number of images, the first of the test set (of the held-out images, where something is to be chosen); a
            stratified sample of a set that lies class by class, as image folders do.
        seed: seed of random starts and directions.
        on_progress: called with a line of text whenever a part is done.
        options: the other fields of `StudyOptions`: threat, attack, epsilons, which, root, device, own_code, width,
            and for the ablation recipe, seeds, settings, train_dir.

    Returns:
        The numbers, and what they say.

    Raises:
        UserError: an unknown study, a run that lacks what the study needs, or files of other inputs in the way.

    Example:
        >>> run("strenght", [])
        Traceback (most recent call last):
        uiat.errors.UserError: unknown study 'strenght'; did you mean 'strength'? known: ...
    """
    if study not in STUDIES:
        raise nearest("study", study, STUDIES)
    chosen = STUDIES[study]
    settings = StudyOptions(n=n, seed=seed, **options)
    _check_options(study, runs, settings)
    folder = None if out is None else Path(out)
    inputs = _list_inputs(runs, settings)
    if folder is not None:
        check_free(folder, study, inputs)
    context = Context(open_runs(runs), settings, on_progress or (lambda line: None), folder)
    if settings.recipe is None:  # an attack or a threat model that cannot be is refused before anything is loaded
        context.make_attack() if chosen.needs_pgd else evaluation.stages(settings.attack, threat=context.threat)
    measured = chosen.measure(context)
    data = _describe(chosen, context, inputs) | measured
    paragraph = " ".join([*context.notes, *chosen.sentences(data), _conditions(data)])
    table = [] if chosen.table is None else chosen.table(data)
    result = Result(study, data | {"paragraph": paragraph}, paragraph, table)
    return result if folder is None else replace(result, files=write(folder, chosen, result, width=settings.width))


def _check_options(study: str, runs: Sequence[str | Path], options: StudyOptions) -> None:
    """Refuse options that do not go together."""
    if options.recipe is not None and study != "ablation":
        raise UserError(f"only the study ablation trains a recipe, not {study}: give it RUN folders")
    if options.recipe is not None and runs:
        raise UserError("an ablation either compares the RUN folders given or trains a recipe: leave one out")
    if options.recipe is None and not runs:
        more = ", or --train RECIPE" if study == "ablation" else ""
        raise UserError(f"the study {study} needs one or more RUN folders{more}")
    if options.recipe is None and (options.settings or options.train_dir):
        raise UserError("--set and --runs are for ablation --train RECIPE; runs that are given are as they are")
    if options.n is not None and options.n < 1:
        raise UserError(f"n must be at least 1, but is {options.n}")


def _list_inputs(runs: Sequence[str | Path], options: StudyOptions) -> Data:
    """List what decides the numbers, to tell the same study, run again, from another of the same name."""
    kept = ("n", "seed", "threat", "attack", "epsilons", "which", "recipe")
    inputs: Data = {"runs": [str(path) for path in runs]} | {name: getattr(options, name) for name in kept}
    if options.recipe is not None:
        inputs |= {"seeds": list(options.seeds), "settings": [list(pair) for pair in options.settings]}
    return inputs


def _describe(study: Study, context: Context, inputs: Data) -> Data:
    """Describe what the numbers of a study were measured on, as every result does."""
    return {
        "study": study.name,
        "about": study.about,
        "inputs": inputs,
        "n": dict(context.sizes),
        "samples": dict(context.samples),
        "seed": context.options.seed,
        "threat": threat_option(context.threat),
        "attack": context.options.attack,
        "data": sorted({run.config.data.name for run in context.runs}),
        "methods": {run.label: method_name(read_plain(run.folder)) for run in context.runs},
        "groups": find_repeats(context.runs),
        "notes": context.notes,
        "environment": describe_environment(),
    }


def _conditions(data: Data) -> str:
    """Write the small print: data, number of images, attack, threat model and seed."""
    chosen = {split: f" ({text})" for split, text in data["samples"].items()}
    sizes = ", ".join(f"{count} {split} images{chosen.get(split, '')}" for split, count in data["n"].items())
    where = f"{' and '.join(data['data'])}: {sizes}" if sizes else " and ".join(data["data"])
    return f"({where}; attack {data['attack']} under {threat_text(data['threat'])}; seed {data['seed']}.)"
