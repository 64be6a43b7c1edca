"""All mistakes of a config in one exception."""

from collections.abc import Sequence


class ConfigError(ValueError):
    """Every mistake of a config, one line each."""

    def __init__(self, errors: Sequence[str], source: str = "the config") -> None:
        self.errors = list(errors)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n  ".join([f"{count} in {source}:", *errors]))
