"""Text in Markdown, LaTeX and JSON: it shows what it says, and nothing of it is obeyed as markup."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from uiat.errors import strip_controls


def markdown_text(text: object) -> str:
    r"""Write text in one line of Markdown that shows what it says: no HTML, link, code or end of a table's cell.

    Names of classes, runs and fields come from files of others, and many viewers render the HTML in Markdown.

    Example:
        >>> markdown_text("<b>|cat|\n[a](javascript:b)")
        '&lt;b>\\|cat\\| [a\\](javascript:b)'
    """
    line = " ".join(strip_controls(str(text)).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    # A bracket is part of a link or its definition only before one of these three.
    return re.sub(r"[\\|`]|\](?=[(\[:])|~(?=~~)|!(?=\[)", lambda match: "\\" + match[0], line)


def markdown_code(text: object) -> str:
    """Write text as code in a line of Markdown, between more backticks than stand together in it.

    Example:
        >>> markdown_code("objective.weight"), markdown_code("a`<b>")
        ('`objective.weight`', '`` a`<b> ``')
    """
    line = " ".join(strip_controls(str(text)).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"


# What TeX takes for a command, and what its old fonts have no character for.
_LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def latex_text(text: object) -> str:
    r"""Write text in one line of LaTeX that shows what it says: no command of a name is obeyed.

    Example:
        >>> print(latex_text("pgd_20 & 50 %"), latex_text(r"\input{a}"))
        pgd\_20 \& 50 \% \textbackslash{}input\{a\}
    """
    line = " ".join(strip_controls(str(text)).split())
    return "".join(_LATEX.get(character, character) for character in line)


def json_text(value: Any) -> str:
    """Write a value as a JSON document that every reader of JSON takes: NaN and infinity, which it lacks, are null.

    Example:
        >>> print(json_text({"loss": float("nan"), "epochs": (1, 2)}))
        {
          "loss": null,
          "epochs": [
            1,
            2
          ]
        }
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
