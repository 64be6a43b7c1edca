"""Every mistake of a config, found before anything is built.

Two phases: what the text alone shows (no torch is imported), then what needs the real classes.
"""

from collections.abc import Mapping
from typing import Any

from visionlab import schema
from visionlab.config.errors import ConfigError
from visionlab.config.keys import (
    COMPONENT_KEYS,
    OWN_TRAINER_KEYS,
    PLURALS,
    RESERVED,
    TOP_KEYS,
    TRAINER,
    arguments_of,
    components,
    locate,
    registry,
)
from visionlab.registry import UnknownNameError, resolve, suggest


def check(
    config: Mapping[str, Any], source: str = "the config", *, trust_code: bool = True
) -> None:
    """Find every mistake before anything is built.

    Args:
        config: resolved.
        source: for messages.
        trust_code: whether ``_target_`` may name any class. False refuses it before its module is
            imported: who runs the config is not who wrote it.

    Raises:
        ConfigError: unknown keys, unknown names, wrong types, missing arguments; all of one phase
            together, first those that need no import, then those that do.
    """
    untrusted = [] if trust_code else _targets(config)
    if untrusted:
        raise ConfigError(untrusted, source)
    for phase in (check_names, check_signatures):
        errors = phase(config)
        if errors:
            raise ConfigError(errors, source)


def _targets(config: Mapping[str, Any]) -> list[str]:
    """One error for each component that names code of its own."""
    return [
        f"{path}: refuses to call '{node['_target_']}'; add --trust-code (in Python "
        "trust_code=True) if you trust whoever wrote this"
        for path, _, node in components(config)
        if isinstance(node, Mapping) and "_target_" in node
    ]


def check_names(config: Mapping[str, Any]) -> list[str]:
    """Errors that the source text alone shows: component names and argument names (no torch)."""
    errors = [
        f"no top-level key '{k}'. {suggest(k, TOP_KEYS)}" for k in config if k not in TOP_KEYS
    ]
    errors += [f"missing: {k} (which {k}?)" for k in ("task", "data") if not config.get(k)]
    if shapes := _shape_errors(config):
        return errors + shapes  # nothing below could be read
    known = schema.static_arguments(TRAINER)
    errors += _unknown_keys("trainer", _trainer(config), known)
    for path, key, node in components(config):
        errors += name_errors(path, key, node)
    return errors


def _shape_errors(config: Mapping[str, Any]) -> list[str]:
    """Sections that are not the kind of thing they should be."""
    errors = []
    trainer = config.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        return [f"trainer: expected keys and values, got {trainer!r}"]
    for key in ("checkpoint_every_n_steps", "accumulate_grad_batches", "check_val_every_n_epoch"):
        every = trainer.get(key, 1)
        if every is None and key == "check_val_every_n_epoch":  # val_check_interval counts batches
            continue
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            errors.append(f"trainer.{key}: expected an int of 1 or more, got {every!r}")
    recompute = trainer.get("activation_checkpointing", False)
    if not isinstance(recompute, bool):
        errors.append(
            f"trainer.activation_checkpointing: expected true or false, got {recompute!r}"
        )
    errors += [
        f"trainer.{k} is set by this project; write a script around visionlab.tasks to change it"
        for k in ("callbacks", "plugins")
        if k in trainer
    ]
    evaluations = config.get("evaluations")
    if evaluations is not None and not isinstance(evaluations, list):
        errors.append(f"evaluations: expected a list of evaluations, got {evaluations!r}")
    return errors


def _trainer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lightning's own keys."""
    return {k: v for k, v in (config.get("trainer") or {}).items() if k not in OWN_TRAINER_KEYS}


def name_errors(path: str, key: str, node: Any) -> list[str]:
    """What is wrong with the name and the argument names of one component, without importing it."""
    if not isinstance(node, Mapping):
        return [f"{path}: expected a mapping with 'name', got {node!r}"]
    if "_target_" in node:
        return [] if "name" not in node else [f"{path}: give 'name' or '_target_', not both"]
    if "name" not in node:
        known = suggest("", registry(key).names()).removeprefix("None is known here.")
        return [f"{path}: 'name' is missing; it says which {key} to build. {known}".rstrip()]
    try:
        place = registry(key).place(node["name"])
    except (UnknownNameError, TypeError) as error:
        return [f"{path}: {error}"]
    return _unknown_keys(path, arguments_of(node), schema.static_arguments(place))


def check_signatures(config: Mapping[str, Any]) -> list[str]:
    """Errors that need the real classes: types, missing and unknown arguments, user targets."""
    errors = _call_errors("trainer", _trainer(config), resolve(TRAINER))
    errors += [
        f"{key}: expected {expected}, got {config[key]!r}"
        for key, kind in (("seed", int), ("output", str))
        if key in config and (expected := schema.mismatch(config[key], kind))
    ]
    for path, key, node in components(config):
        if not isinstance(node, Mapping) or not any(k in node for k in RESERVED):
            continue  # reported by check_names
        try:
            target = locate(key, node)
        except ConfigError as error:
            errors += [f"{path}: {message}" for message in error.errors]
            continue
        errors += _call_errors(path, arguments_of(node), target)
    return errors


def _call_errors(path: str, arguments: Mapping[str, Any], target: Any) -> list[str]:
    known = schema.parameters(target)
    if known is None:
        return []
    errors = []
    if not schema.accepts_anything(target):
        errors += _unknown_keys(path, arguments, set(known))
    for name, parameter in known.items():
        if name not in arguments:
            if schema.is_required(parameter):
                errors.append(f"{path}: '{name}' is missing and has no default")
            continue
        if arguments[name] is not None and (name in COMPONENT_KEYS or name in PLURALS):
            continue  # checked as a component
        expected = schema.mismatch(arguments[name], parameter.annotation)
        if expected:
            errors.append(f"{path}.{name}: expected {expected}, got {arguments[name]!r}")
    return errors


def _unknown_keys(path: str, given: Mapping[str, Any], known: set[str] | None) -> list[str]:
    if known is None:
        return []
    return [f"{path}: no key '{k}'. {suggest(k, known)}" for k in given if k not in known]
