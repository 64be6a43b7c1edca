"""Names for components: a registry maps a name to the place of a class, imported on first use.

Standard library only, so that a misspelt name is reported before torch is imported.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

T = TypeVar("T")

_SHOW_AT_MOST = 20


class UnknownNameError(KeyError, ValueError):
    """A name that no registry entry has; the message holds the nearest right one."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


def suggest(name: str, known: Iterable[str]) -> str:
    """Say what the user may have meant: ``Did you mean 'green'? Known: 'blue', 'green', ...``."""
    known = sorted(known)
    if not known:
        return "None is known here."
    folded = {k.casefold(): k for k in known}
    close = [folded[c] for c in difflib.get_close_matches(str(name).casefold(), folded, n=3)]
    if len(known) > _SHOW_AT_MOST:  # the nearest few serve better than the first of the alphabet
        near = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        return f"{near}{len(known)} names are known."
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(map(repr, known))}."


class Registry:
    """Name -> class or function, given as an object or as a lazy ``"module:attribute"`` string.

    Example:
        >>> shapes = Registry("shape", {"path": "pathlib:Path"})
        >>> shapes.get("path").__name__
        'Path'
    """

    def __init__(self, kind: str, entries: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries or {})

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a class or function under ``name``.

        Raises:
            ValueError: the name is taken by another object.
        """

        def add(target: T) -> T:
            known = self._entries.get(name)
            if known is not None and known is not target and known != location(target):
                raise ValueError(f"{self.kind} '{name}' is already registered; choose another name")
            self._entries[name] = target
            return target

        return add

    def get(self, name: str) -> Any:
        """The object behind ``name``, imported if need be.

        Raises:
            UnknownNameError: no such name; the message tells the nearest one.
        """
        return resolve(self.place(name))

    def place(self, name: str) -> Any:
        """The entry as it stands: a ``"module:attribute"`` string or the object itself."""
        if not isinstance(name, str):
            raise TypeError(
                f"the name of a {self.kind} is a string, got {type(name).__name__} {name!r}"
            )
        if name not in self._entries:
            raise UnknownNameError(f"no {self.kind} '{name}'. {suggest(name, self.names())}")
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """All names that match a shell pattern, sorted."""
        return sorted(n for n in self._entries if fnmatchcase(n, pattern))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def location(target: Any) -> str:
    """``"module:attribute"`` of a class or function."""
    return f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"


def resolve(place: Any) -> Any:
    """Import what a ``"module:attribute"`` string points to; objects pass through."""
    if not isinstance(place, str):
        return place
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def lazy_exports(
    package: str, exports: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names load on first use (PEP 562).

    Args:
        package: ``__name__`` of the package.
        exports: public name -> sub-module that defines it; a sub-module exports itself under
            its own name (so no function may bear the name of the module that defines it: the
            import system binds that name to the module).

    Returns:
        The two functions, to be assigned to ``__getattr__`` and ``__dir__`` of the package.
    """

    def getattr_(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module '{package}' has no '{name}'. {suggest(name, exports)}")
        module = importlib.import_module(f"{package}.{exports[name]}")
        value = module if exports[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)  # the next access is a plain look-up
        return value

    def dir_() -> list[str]:
        return sorted(exports)

    return getattr_, dir_


# Bare torch modules that a checkpoint may hold; rebuilt by `visionlab.load` without Lightning.
MODELS = Registry(
    "model",
    {
        "masked_autoencoder": "visionlab.masking.autoencoder:MaskedAutoencoder",
        "image_classifier": "visionlab.heads.classifier:ImageClassifier",
        "multitask": "visionlab.heads.multitask:MultiTaskModel",
        "learned_proximal_network": "visionlab.proximal.network:LearnedProximalNetwork",
        "proximal_network": "visionlab.proximal.network:ProximalNetwork",
    },
)
