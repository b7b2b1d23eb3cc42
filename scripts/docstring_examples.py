"""For the API's pages: examples in docstrings (`>>>`) as blocks of code, wherever in a docstring they stand.

A griffe extension, named in zensical.toml. Griffe itself looks for examples in a section of that name alone.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class DocstringExamples(Extension):
    """Fences each example."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
