"""One config laid over another, and what differs between two."""

import logging
from collections.abc import Mapping
from typing import Any

from visionlab.config.keys import RESERVED, title

log = logging.getLogger("visionlab")


def merge(
    base: Mapping[str, Any], top: Mapping[str, Any], path: str = "", *, level: int = logging.INFO
) -> dict[str, Any]:
    """``base`` with ``top`` laid over it, key by key.

    A mapping that names another component (``name`` or ``_target_`` differs) replaces the old one
    whole, so that no key of the old component lingers; the dropped keys are logged at ``level``.
    """
    merged = dict(base)
    for key, value in top.items():
        old, here = merged.get(key), f"{path}.{key}" if path else str(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
        elif _other_component(old, value):
            _log_dropped(here, old, value, level)
            merged[key] = value
        else:
            merged[key] = merge(old, value, here, level=level)
    return merged


def _other_component(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    identity = [new.get(k) for k in RESERVED]
    return any(identity) and identity != [old.get(k) for k in RESERVED]


def _log_dropped(path: str, old: Mapping[str, Any], new: Mapping[str, Any], level: int) -> None:
    dropped = [k for k in old if k not in new and k not in RESERVED]
    if dropped:
        log.log(level, "%s is now %s: dropped %s", path, title(new), ", ".join(dropped))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two resolved configs: ``task.model.mask.ratio: 0.75 -> 0.6``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        rows = []
        for k in [*old, *(k for k in new if k not in old)]:
            here = f"{path}.{k}" if path else str(k)
            rows += differences(old.get(k, "(absent)"), new.get(k, "(absent)"), here)
        return rows
    return [] if old == new else [f"{path}: {old} -> {new}"]
