"""Open a wheel: types are marked, data files are inside, the core is small. `check_wheel.py WHEEL`."""

import sys
from email.parser import Parser
from zipfile import ZipFile

NEEDED = (
    "uiat/py.typed",
    "uiat/cli/PAPER.md",
    *(f"uiat/report/templates/{name}" for name in ("report.html.j2", "style.css")),
    *(f"uiat/explore/templates/{name}" for name in ("page.html", "page.css", "page.js")),
)
CORE = {"torch", "numpy", "safetensors", "filelock", "rich", "pydantic", "typer", "pyyaml"}


def main(path: str) -> None:
    wheel = ZipFile(path)
    names = set(wheel.namelist())
    assert not (missing := set(NEEDED) - names), f"{path} lacks {missing}"
    foreign = {name for name in names if not name.startswith("uiat/") and ".dist-info/" not in name}
    assert not foreign, f"{path} holds {foreign}"
    (record,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    facts = Parser().parsestr(wheel.read(record).decode())
    required = facts.get_all("Requires-Dist") or []
    core = {text.split(">")[0] for text in required if "extra ==" not in text}
    assert core == CORE, f"the core needs {core}"
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in (facts.get_all("Classifier") or [])
    print(f"{path}: {len(names)} files, {sum(each.file_size for each in wheel.infolist()):,} bytes, {facts['Version']}")


if __name__ == "__main__":
    main(sys.argv[1])
