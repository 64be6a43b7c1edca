"""YAML and ``key=value`` in, checked objects out.

    config = read("configs/quickstart.yaml", ["trainer.max_epochs=2"])   # plain dicts
    check(config)                                                         # all errors together
    task = build(config["task"], key="task")

A mapping under a *component key* (``model``, ``mask``, ``data``, ...; see `COMPONENT_KEYS`) names
a registered class by ``name`` or a user's own by ``_target_: package.Class``; its other keys are
the arguments of the constructor. Children are built first, so constructors receive objects.

`read` and the first half of `check` import no torch: syntax, files, override keys and component
names are reported within a second.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from visionlab import schema
from visionlab.registry import MODELS, Registry, UnknownNameError, resolve, suggest

log = logging.getLogger("visionlab")

# component key -> registry, or the place of one; a plural key holds a list or dict of components
COMPONENT_KEYS: dict[str, Registry | str] = {
    "task": "visionlab.tasks:TASKS",
    "evaluation": "visionlab.tasks:EVALUATIONS",
    "optimizer": "visionlab.tasks:OPTIMIZERS",
    "data": "visionlab.data:DATA",
    "dataset": "visionlab.data:DATASETS",
    "transform": "visionlab.data:TRANSFORMS",
    "model": MODELS,
    "backbone": "visionlab.backbones:BACKBONES",
    "mask": "visionlab.masking:MASKS",
    "decoder": "visionlab.masking:DECODERS",
    "head": "visionlab.heads:HEADS",
    "physics": "visionlab.proximal:PHYSICS",
    "estimator": "visionlab.rotation:ESTIMATORS",
    "camera": "visionlab.rotation:CAMERAS",
    "flow": "visionlab.rotation:FLOWS",
}
# no component holds a list of tasks; `tasks` are names (of a MoE backbone)
_PLURALS = {f"{key}s": key for key in COMPONENT_KEYS if key != "task"}
_TOP_KEYS = ("task", "data", "trainer", "seed", "output", "evaluations")
_TRAINER = "lightning.pytorch.trainer.trainer:Trainer"
_RESERVED = ("name", "_target_")
# keys of `trainer` that are this project's, not Lightning's
OWN_TRAINER_KEYS = ("checkpoint_every_n_steps", "activation_checkpointing")


class ConfigError(ValueError):
    """Every mistake of a config, one line each."""

    def __init__(self, errors: Sequence[str], source: str = "the config") -> None:
        self.errors = list(errors)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n  ".join([f"{count} in {source}:", *errors]))


# ---------------------------------------------------------------- reading


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


def override(
    config: Mapping[str, Any], overrides: Sequence[str], source: str = "the command line"
) -> dict[str, Any]:
    """A copy of ``config`` with ``key=value`` texts laid over it.

    Raises:
        ConfigError: malformed overrides, all together.
    """
    changed = copy.deepcopy(dict(config))
    errors: list[str] = []
    for text in overrides:
        try:
            _apply(changed, text)
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError(errors, source)
    return changed


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
        config = merge(config, _read_file(path.parent / base, (*chain, path)))
    return merge(config, loaded)


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def merge(base: Mapping[str, Any], top: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """``base`` with ``top`` laid over it, key by key.

    A mapping that names another component (``name`` or ``_target_`` differs) replaces the old one
    whole, so that no key of the old component lingers; the dropped keys are logged.
    """
    merged = dict(base)
    for key, value in top.items():
        old, here = merged.get(key), f"{path}.{key}" if path else str(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
        elif _other_component(old, value):
            _log_dropped(here, old, value)
            merged[key] = value
        else:
            merged[key] = merge(old, value, here)
    return merged


def _other_component(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    identity = [new.get(k) for k in _RESERVED]
    return any(identity) and identity != [old.get(k) for k in _RESERVED]


def _log_dropped(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    dropped = [k for k in old if k not in new and k not in _RESERVED]
    if dropped:
        log.info("%s is now %s: dropped %s", path, _title(new), ", ".join(dropped))


def _title(component: Mapping[str, Any]) -> str:
    return str(component.get("name") or component.get("_target_"))


def _apply(config: dict[str, Any], text: str) -> None:
    """Lay one ``a.b.c=value`` over the config, in place."""
    from omegaconf import OmegaConf

    path, separator, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ValueError(f"'{text}' is no override; write key=value, as in trainer.max_epochs=3")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value_text}"]))["v"]  # type: ignore
    except Exception as error:
        raise ValueError(f"the value of '{text}' is not YAML: {_one_line(error)}") from error
    if keys[0] not in _TOP_KEYS:
        raise ValueError(f"no key '{keys[0]}' to override. {suggest(keys[0], _TOP_KEYS)}")
    if keys[-1] in _RESERVED:  # the name alone: the old component's keys go with it
        keys, value = keys[:-1], {keys[-1]: value}
    _put(config, keys, value, path)


def _put(config: dict[str, Any], keys: list[str], value: Any, path: str) -> None:
    node: Any = config
    for depth, key in enumerate(keys[:-1]):
        node = _step(node, key, ".".join(keys[:depth]), create=True)
    last: Any = keys[-1]
    if isinstance(node, list):
        _step(node, last, path, create=False)
        node[int(last)] = value
        return
    if not isinstance(node, dict):
        raise ValueError(f"cannot set '{path}': {'.'.join(keys[:-1])} is {node!r}, not a mapping")
    old = node.get(last)
    if isinstance(value, str) and isinstance(old, Mapping) and any(k in old for k in _RESERVED):
        value = {"name": value}
    node[last] = merge({last: old}, {last: value}, ".".join(keys[:-1]))[last]


def _step(node: Any, key: str, path: str, *, create: bool) -> Any:
    if isinstance(node, list):
        if not key.isdecimal() or int(key) >= len(node):
            raise ValueError(f"'{path}' is a list of {len(node)}; '{key}' is no index of it")
        return node[int(key)]
    if not isinstance(node, dict):
        raise ValueError(f"'{path}' is {node!r}, which has no key '{key}'")
    if create and not isinstance(node.get(key), (dict, list)):
        # a component given by its name alone grows into a mapping
        old = node.get(key)
        if old is not None and not isinstance(old, str):
            here = f"{path}.{key}" if path else key
            raise ValueError(f"'{here}' is {old!r}, which has no keys")
        node[key] = {"name": old} if old else {}
    return node[key]


# ---------------------------------------------------------------- checking


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
        f"no top-level key '{k}'. {suggest(k, _TOP_KEYS)}" for k in config if k not in _TOP_KEYS
    ]
    errors += [f"missing: {k} (which {k}?)" for k in ("task", "data") if not config.get(k)]
    if shapes := _shape_errors(config):
        return errors + shapes  # nothing below could be read
    known = schema.static_arguments(_TRAINER)
    errors += _unknown_keys("trainer", _trainer(config), known)
    for path, key, node in components(config):
        errors += _name_errors(path, key, node)
    return errors


def _shape_errors(config: Mapping[str, Any]) -> list[str]:
    """Sections that are not the kind of thing they should be."""
    errors = []
    trainer = config.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        return [f"trainer: expected keys and values, got {trainer!r}"]
    every = trainer.get("checkpoint_every_n_steps", 1)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        errors.append(
            f"trainer.checkpoint_every_n_steps: expected an int of 1 or more, got {every!r}"
        )
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


def _name_errors(path: str, key: str, node: Any) -> list[str]:
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
    return _unknown_keys(path, _arguments(node), schema.static_arguments(place))


def check_signatures(config: Mapping[str, Any]) -> list[str]:
    """Errors that need the real classes: types, missing and unknown arguments, user targets."""
    errors = _call_errors("trainer", _trainer(config), resolve(_TRAINER))
    errors += [
        f"{key}: expected {expected}, got {config[key]!r}"
        for key, kind in (("seed", int), ("output", str))
        if key in config and (expected := schema.mismatch(config[key], kind))
    ]
    for path, key, node in components(config):
        if not isinstance(node, Mapping) or not any(k in node for k in _RESERVED):
            continue  # reported by check_names
        try:
            target = locate(key, node)
        except ConfigError as error:
            errors += [f"{path}: {message}" for message in error.errors]
            continue
        errors += _call_errors(path, _arguments(node), target)
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
        if arguments[name] is not None and (name in COMPONENT_KEYS or name in _PLURALS):
            continue  # checked as a component
        expected = schema.mismatch(arguments[name], parameter.annotation)
        if expected:
            errors.append(f"{path}.{name}: expected {expected}, got {arguments[name]!r}")
    return errors


def _unknown_keys(path: str, given: Mapping[str, Any], known: set[str] | None) -> list[str]:
    if known is None:
        return []
    return [f"{path}: no key '{k}'. {suggest(k, known)}" for k in given if k not in known]


def components(config: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every component below ``config`` as (dotted path, component key, mapping), parents first."""
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for name, value in items:
        here = f"{path}.{name}" if path else str(name)
        if name in COMPONENT_KEYS and value is not None:
            yield here, str(name), _expand(value)
        elif name in _PLURALS and isinstance(value, (Mapping, list)):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            for k, v in inner:
                yield f"{here}.{k}", _PLURALS[name], _expand(v)
        if isinstance(value, (Mapping, list)):
            yield from components(value, here)


def registry(key: str) -> Registry:
    """The registry behind a component key."""
    return resolve(COMPONENT_KEYS[key])


def _expand(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k not in _RESERVED}


# ---------------------------------------------------------------- building


def locate(key: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a component mapping names.

    Raises:
        ConfigError: its module or attribute does not exist.
    """
    if "_target_" not in node:
        return registry(key).get(node["name"])
    target = str(node["_target_"])
    module, _, attribute = target.rpartition(".")
    try:
        return resolve(f"{module}:{attribute}")
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # a package that the user's own module needs is missing: its own message is right
        raise ConfigError(
            [f"_target_ '{target}': no module '{error.name}' can be imported"]
        ) from error
    except (AttributeError, ValueError) as error:
        raise ConfigError([f"_target_ '{target}' does not exist; write package.Class"]) from error


def build(node: Any, *, key: str, path: str = "", trust_code: bool = True) -> Any:
    """Build a component, children first.

    Args:
        node: the mapping (``name`` or ``_target_`` and arguments) or the name alone.
        key: its component key, which names the registry.
        path: where it stands in the config, for messages.
        trust_code: whether ``_target_`` may call any class. False refuses it: a checkpoint from
            elsewhere must not run code of its choice.

    Raises:
        ConfigError: the constructor refused its arguments, or ``_target_`` is not trusted.
    """
    node, path = _expand(node), path or key
    if errors := _name_errors(path, key, node):
        raise ConfigError(errors)
    if "_target_" in node and not trust_code:
        raise ConfigError(
            [f"{path}: refuses to call '{node['_target_']}' from a file; add --trust-code (in "
             "Python trust_code=True) if you trust whoever wrote the file"]
        )  # fmt: skip
    target = locate(key, node)
    known = schema.parameters(target) or {}
    arguments = {
        name: build_tree(
            schema.convert(value, known[name].annotation) if name in known else value,
            name,
            f"{path}.{name}",
            trust_code,
        )
        for name, value in _arguments(node).items()
    }
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError([f"{path} ({_title(node)}): {error}"]) from error


def build_tree(value: Any, name: str, path: str = "", trust_code: bool = True) -> Any:
    """``value`` with every component below it built; ``name`` is the key that holds it."""
    if value is None:
        return None
    if name in COMPONENT_KEYS:
        return build(value, key=name, path=path, trust_code=trust_code)
    if isinstance(value, Mapping):
        key = _PLURALS.get(name)
        return {
            k: build(v, key=key, path=f"{path}.{k}", trust_code=trust_code)
            if key
            else build_tree(v, k, f"{path}.{k}", trust_code)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [build_tree(v, _PLURALS.get(name, ""), f"{path}.{i}", trust_code)
                for i, v in enumerate(value)]  # fmt: skip
    return value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two resolved configs: ``task.model.mask.ratio: 0.75 -> 0.6``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        rows = []
        for k in [*old, *(k for k in new if k not in old)]:
            here = f"{path}.{k}" if path else str(k)
            rows += differences(old.get(k, "(absent)"), new.get(k, "(absent)"), here)
        return rows
    return [] if old == new else [f"{path}: {old} -> {new}"]
