"""The examples of README.md, CONTRIBUTING.md, the guides, the tutorials and the notebooks are run as they stand there.

`docs/site/code_blocks.py` says which blocks are run, and how. The output that a document shows is not compared.
"""

import sys

import pytest
from code_blocks import DIRECTIVE, IN_ONE_PROCESS, chains, command, commands, run

from support.paths import ROOT

DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md"),
    *(
        "docs/methods.md",
        "docs/data.md",
        "docs/export.md",
        "docs/coming-from.md",
        "docs/fine-tune.md",
        "docs/own-model-and-data.md",
        "docs/own-loop.md",
        "docs/evaluate.md",
        "docs/report-and-sweep.md",
        "docs/scale-out.md",
    ),
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/tutorials/[!R]*.md"))),
)
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.py"))
CHAINS = {
    (document, name): blocks
    for document in DOCUMENTS
    for name, blocks in chains((ROOT / document).read_text(encoding="utf-8")).items()
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_document_has_examples_that_are_run(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    mine = [blocks for (where, _), blocks in CHAINS.items() if where == document]
    assert mine, f"no block of {document} is marked with <!-- test: run -->"
    assert len(DIRECTIVE.findall(text)) == sum(map(len, mine)), "a test directive without a block after it"


# The others cost some seconds each, and `make test-all` runs them.
AT_ONCE = {key for key in CHAINS if key[0] == "README.md"}


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=() if key in AT_ONCE else pytest.mark.slow, id="-".join(key)) for key in CHAINS],
)
def test_example_runs(key, tmp_path):
    for language, code in CHAINS[key]:
        done = run(command(language, code), tmp_path)
        assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, tmp_path):
    done = run([sys.executable, str(notebook)], tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]


def test_blocks_are_found():
    text = (
        "<!-- test: run -->\n```python\nprint(1)\n```\n```bash\nfalse\n```\n"
        "<!-- test: run a -->\n\n```console\n$ echo 1 \\\n>   2\n1 2\n$ echo 3\n3\n```\n"
        "<!-- test: run a -->\n```bash\ntrue\n```\n"
    )
    found = chains(text)
    assert found["line-3"] == [("python", "print(1)\n")]
    assert [language for language, _ in found["a"]] == ["console", "bash"]
    assert commands(found["a"][0][1]) == ["echo 1 \\\n  2", "echo 3"]
    assert command("console", "$ uiat show a\nrun a\n$ uiat show 'b c'\n")[2:] == [
        *(IN_ONE_PROCESS.format(""), "uiat show a", "uiat show 'b c'")
    ]
    assert command("console", "$ uiat show a\n$ uiat show b | cat\n")[-1] == "uiat show a\nuiat show b | cat"
