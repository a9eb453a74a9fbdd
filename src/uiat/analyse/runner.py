"""Name every study, and run one.

The module is not called `run`, since `uiat.analyse.run` is the function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from uiat import evaluation
from uiat.analyse.measurements import find_repeats, without_copies
from uiat.analyse.prose import join_words
from uiat.analyse.result import Result, check_free, write
from uiat.analyse.study import DECIDING, Context, Data, Study, StudyOptions, StudyRun, open_runs
from uiat.checks import checked
from uiat.errors import UserError, nearest
from uiat.formatting import threat_option, threat_text
from uiat.runs.methods import method_name
from uiat.runs.reader import WEIGHTS_FILES
from uiat.runs.settings import read_plain
from uiat.system.atomic_folder import probe
from uiat.system.environment import describe_environment
from uiat.system.manifest import sum_of_tensor_file
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
    seed: int | None = None,
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
        seed: seed of random starts and directions; 0 by default.
        on_progress: called with a line of text whenever a part is done.
        options: the other fields of `StudyOptions`: threat, attack, epsilons, which, root, device, own_code, width,
            and for the ablation recipe, seeds, settings, train_dir.

    Returns:
        The numbers, and what they say.

    Raises:
        UserError: an unknown study, an option that it does not read, a run that lacks what it needs, or files of other
            inputs in the way.

    Example:
        >>> run("strenght", [])
        Traceback (most recent call last):
        uiat.errors.UserError: unknown study 'strenght'; did you mean 'strength'? known: ...
    """
    if study not in STUDIES:
        raise nearest("study", study, STUDIES)
    chosen = STUDIES[study]
    given = {name: value for name, value in {"n": n, "seed": seed, **options}.items() if value is not None}
    settings = StudyOptions(**given)
    _check_options(chosen, runs, settings, given)
    folder = None if out is None else Path(out)
    opened = without_copies(open_runs(runs))
    inputs = _list_inputs(chosen, runs, opened, settings)
    if folder is not None:
        check_free(folder, study, inputs)
    is_attacked = "threat" in chosen.reads
    context = Context(opened, settings, on_progress or (lambda line: None), folder, is_attacked=is_attacked)
    if settings.recipe is None:
        _check_attack(chosen, context)
    if folder is not None:
        probe(folder / f"{study}.json", advice="; choose another --out")
    measured = chosen.measure(context)
    data = _describe(chosen, context, inputs) | measured
    paragraph = " ".join([*context.notes, *chosen.sentences(data), _conditions(data)])
    table = [] if chosen.table is None else chosen.table(data)
    result = Result(study, data | {"paragraph": paragraph}, paragraph, table)
    return result if folder is None else replace(result, files=write(folder, chosen, result, width=settings.width))


def _check_options(chosen: Study, runs: Sequence[str | Path], options: StudyOptions, given: Mapping[str, Any]) -> None:
    """Refuse options that do not go together, and those that were given and would go unread."""
    study = chosen.name
    if options.recipe is not None and study != "ablation":
        raise UserError(f"only the study ablation trains a recipe, not {study}: give it RUN folders")
    if options.recipe is not None and runs:
        raise UserError("an ablation either compares the RUN folders given or trains a recipe: leave one out")
    if options.recipe is None and not runs:
        more = ", or --train RECIPE" if study == "ablation" else ""
        raise UserError(f"the study {study} needs one or more RUN folders{more}")
    if options.recipe is None and any(given.get(name) for name in ("settings", "train_dir", "seeds")):
        raise UserError(
            "--set, --seeds and --runs are for ablation --train RECIPE; runs that are given are as they are"
        )
    if unread := [name for name in DECIDING if name in given and name not in chosen.reads]:
        raise UserError(
            f"the study {study} does not read {join_words(unread)}, but {join_words(list(chosen.reads))}: leave it out"
        )
    if options.which not in WEIGHTS_FILES:
        raise nearest("weights", options.which, WEIGHTS_FILES)
    if options.n is not None and options.n < 1:
        raise UserError(f"n must be at least 1, but is {options.n}")


def _check_attack(study: Study, context: Context) -> None:
    """Refuse an attack or a threat model that cannot be, before anything is loaded."""
    if "attack" not in study.reads:
        return
    if study.needs_pgd:
        context.make_attack()
    else:
        evaluation.stages(context.options.attack, threat=context.threat)


def _list_inputs(study: Study, runs: Sequence[str | Path], opened: Sequence[StudyRun], options: StudyOptions) -> Data:
    """List what decides the numbers, to tell the same study, run again, from another of the same name.

    Runs are known by the sums of the weights that are read: a path may name another run tomorrow, or elsewhere.
    """
    files = {options.which: WEIGHTS_FILES[options.which]} if "which" in study.reads else WEIGHTS_FILES
    weights = {
        run.label: {
            kind: sum_of_tensor_file(run.folder / name)
            for kind, name in files.items()
            if (run.folder / name).is_file()  # where there are none, the study itself says what it lacks
        }
        for run in opened
    }
    kept = [name for name in DECIDING if name in study.reads]
    inputs: Data = {"runs": [str(path) for path in runs], "weights": weights}
    inputs |= {name: getattr(options, name) for name in (*kept, "recipe")}
    if options.recipe is not None:
        inputs |= {"seeds": list(options.seeds), "settings": [list(pair) for pair in options.settings]}
    return inputs


def _describe(study: Study, context: Context, inputs: Data) -> Data:
    """Describe what the numbers of a study were measured on, as every result does; None for what it does not read."""
    reads = study.reads
    return {
        "study": study.name,
        "about": study.about,
        "inputs": inputs,
        "n": dict(context.sizes),
        "samples": dict(context.samples),
        "seed": context.options.seed if "seed" in reads else None,
        "threat": threat_option(context.threat) if "threat" in reads else None,
        "attack": context.options.attack if "attack" in reads else None,
        "data": sorted({run.config.data.name for run in context.runs}),
        "methods": {run.label: method_name(read_plain(run.folder)) for run in context.runs},
        "groups": find_repeats(context.runs),
        "notes": context.notes,
        "environment": describe_environment(),
    }


def _conditions(data: Data) -> str:
    """Write the small print: data, number of images, and the attack, threat model and seed that were read."""
    chosen = {split: f" ({text})" for split, text in data["samples"].items()}
    sizes = ", ".join(f"{count} {split} images{chosen.get(split, '')}" for split, count in data["n"].items())
    where = f"{' and '.join(data['data'])}: {sizes}" if sizes else " and ".join(data["data"])
    threat = "" if data["threat"] is None else threat_text(data["threat"])
    attack = f"attack {data['attack']} under {threat}" if data["attack"] else threat and f"threat model {threat}"
    seed = "" if data["seed"] is None else f"seed {data['seed']}"
    return f"({'; '.join(part for part in (where, attack, seed) if part)}.)"
