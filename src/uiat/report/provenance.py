"""How the runs were made: the settings in which they differ, versions and hardware, and their folders."""

from collections.abc import Sequence

from uiat.report.groups import Group, find_differences
from uiat.report.inputs import Inputs
from uiat.report.labels import plain
from uiat.report.section import Cell, Column, Listing, Section, Table
from uiat.runs.reader import leaves
from uiat.runs.run_files import RunFiles
from uiat.system.extras import installed_version


def settings(inputs: Inputs) -> Section:
    """Return the panel of settings that differ between groups."""
    rows, partly = describe_differences(inputs.groups)
    columns = [Column("field"), *(Column(group.label) for group in inputs.groups)]
    cells = [[Cell(path, code=True), *map(Cell, values)] for path, *values in rows]
    table = Table(columns, cells, "Settings that differ", style="settings")
    folded = Listing(partly, code=True, folded=True)
    return Section(
        "Settings that differ",
        anchor="differences",
        link="Settings",
        tables=[table] if rows else (),
        parts=[Section("Fields that only some methods have, equal wherever there are", listing=folded)],
    )


def describe_differences(groups: Sequence[Group]) -> tuple[list[list[str]], list[str]]:
    """List the settings in which groups differ, and those that only some groups have, equal in all that have them.

    Returns:
        Rows of the field and its value in each group, a dash where the method has no such field; and sentences.

    Example:
        >>> from pathlib import Path
        >>> configs = {"a": {"x": 1}, "b": {"x": 2, "y": 3}}
        >>> describe_differences([Group((RunFiles(Path(name), config),), name) for name, config in configs.items()])
        ([['x', '1', '2']], ['y = 3'])
    """
    known = [dict(leaves(group.first.config)) for group in groups]
    rows, partly = [], []
    for path, _ in find_differences([group.first for group in groups]):
        values = [settings[path] for settings in known if path in settings]
        if all(value == values[0] for value in values):
            partly.append(f"{path} = {plain(values[0])}")
        else:
            rows.append([path, *(plain(settings[path]) if path in settings else "–" for settings in known)])
    return rows, partly


def environment(inputs: Inputs) -> Section:
    """Return the panel of versions, hardware and run folders."""
    rows = environments(inputs.runs)
    folders = Listing([str(run.folder) for run in inputs.runs], "folders", code=True)
    return Section(
        "Environment",
        anchor="environment",
        intro="" if rows else "None of the runs says with what it was made.",
        listing=Listing(rows, "pairs") if rows else None,
        parts=[Section("Run folders", markdown_title=made_by(inputs, "the confusion"), listing=folders)],
    )


def made_by(inputs: Inputs, shown: str) -> str:
    """Say which version made the report, and whether it ran any model.

    Args:
        inputs: the runs.
        shown: what the answers of the models are shown in.
    """
    if any(inputs.samples_of(group) for group in inputs.groups):
        source = f"from the files of these runs; for {shown}, their models answered on test images"
    else:
        source = "from the files of these runs alone: no model was run"
    version = installed_version("uiat") or "from a source tree"
    return f"Made by uiat {version} {source}"


def environments(runs: Sequence[RunFiles]) -> list[tuple[str, str]]:
    """List versions and hardware: once where it is the same for all runs that say it, else with the runs' folders.

    Example:
        >>> from pathlib import Path
        >>> environments([RunFiles(Path("a"), {}, {"torch": "2.14"}), RunFiles(Path("b"), {}, {"torch": "2.15"})])
        [('torch', '2.14 (a); 2.15 (b)')]
    """
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.environment):
        folders: dict[str, list[str]] = {}
        for run in runs:
            value = run.environment.get(key)
            if value not in (None, []):
                folders.setdefault(plain(value), []).append(run.folder.name)
        texts = [value if len(folders) == 1 else f"{value} ({', '.join(names)})" for value, names in folders.items()]
        rows.append((key.replace("_", " "), "; ".join(texts) or "none"))
    return rows
