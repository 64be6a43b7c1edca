"""A YAML file with its bases, overrides and interpolation, as plain dicts."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionlab.config.errors import ConfigError
from visionlab.config.merging import merge
from visionlab.config.overrides import override
from visionlab.registry import suggest


def read(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved config as plain dicts and lists: file, its bases, overrides, interpolation.

    Args:
        path: YAML file; its ``_base_`` (a path or list of paths relative to it) is merged first.
        overrides: ``key=value`` texts; keys are dotted, values are YAML (``null``, lists, ...).

    Raises:
        ConfigError: a file is missing, is no YAML or refers to itself; an override is malformed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = override(_read_file(Path(path), chain=()), overrides, str(path))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([f"interpolation: {str(error).splitlines()[0]}"], str(path)) from error
    assert isinstance(resolved, dict)
    return resolved  # type: ignore[return-value]


def read_plain(path: str | Path) -> dict[str, Any]:
    """A resolved ``config.yaml`` of a run folder: no bases, no interpolation."""
    return _load_yaml(Path(path))


def _read_file(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in chain:
        raise ConfigError([f"_base_ refers back to {path.name}; remove the circle"], str(chain[0]))
    loaded = _load_yaml(path)
    bases = loaded.pop("_base_", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise ConfigError([f"_base_: expected a path or a list of paths, got {bases!r}"], str(path))
    config: dict[str, Any] = {}
    for base in bases:
        config = merge(config, _read_file(path.parent / base, (*chain, path)), level=logging.DEBUG)
    # what a file says is meant; what a command line drops by the way is told
    return merge(config, loaded, level=logging.DEBUG)


def _load_yaml(path: Path) -> dict[str, Any]:
    from visionlab import yaml_files

    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError([f"no file '{path.name}' in {path.parent}. {suggest(path.name, near)}"])
    try:
        loaded = yaml_files.load(path)
    except ValueError as error:
        raise ConfigError([f"not readable as YAML: {error}"], str(path)) from error
    if not isinstance(loaded, dict):
        raise ConfigError([f"holds a {type(loaded).__name__}; expected keys and values"], str(path))
    return {str(k): v for k, v in loaded.items()}
