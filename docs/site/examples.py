"""Let griffe show the docstrings' examples as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Rename the section "Example", which griffe takes for prose, to "Examples", which it takes for code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename it in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
