"""The names of timm's architectures, read from its source so that timm need not be imported.

Importing timm costs seconds (it loads torch and every model family); a misspelt name in a config
shall be reported at once.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path

_ENTRY = re.compile(r"^@register_model\s*\ndef\s+(\w+)", re.MULTILINE)


@cache
def timm_names() -> frozenset[str]:
    """Every architecture that the installed timm registers (empty if timm is not installed)."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(spec.submodule_search_locations[0]) / "models"
    texts = (file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    return frozenset(name for text in texts for name in _ENTRY.findall(text))
