"""What a component accepts, read from its constructor: the signature is the schema.

Two readings of the same signature: a static one from the source text (no import, so a misspelt
key is reported before torch is loaded) and the real one (types, missing arguments).
"""

import ast
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

_EMPTY = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def static_arguments(place: Any) -> set[str] | None:
    """Argument names of ``"module:attribute"`` from its source text, without importing it.

    None where the text cannot tell: ``**kwargs``, an inherited or generated constructor.
    """
    if not isinstance(place, str):
        return None
    module, _, attribute = place.partition(":")
    path = source_file(module)
    if path is None:
        return None
    body: Sequence[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    node = _definition(body, attribute)
    if isinstance(node, ast.ClassDef):
        node = _definition(node.body, "__init__")
    if not isinstance(node, ast.FunctionDef) or node.args.kwarg is not None:
        return None
    arguments = node.args
    return {a.arg for a in arguments.args + arguments.kwonlyargs} - {"self", "cls"}


def source_file(module: str) -> Path | None:
    """The file of a module, found without importing its parents; None for built-ins."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    for root in map(Path, spec.submodule_search_locations):
        base = root.joinpath(*rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _definition(body: Sequence[ast.stmt], name: str) -> ast.stmt | None:
    return next((n for n in body if getattr(n, "name", None) == name), None)


def parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """Named parameters of a class or function, annotations resolved; None if it cannot tell."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # some built-ins carry no signature
        return None
    function = getattr(target, "func", target)  # of a functools.partial
    hints = _hints(function.__init__ if inspect.isclass(function) else function)
    found = {}
    for name, p in signature.parameters.items():
        annotation = hints.get(name, p.annotation)
        if p.kind in _NAMED:
            found[name] = p.replace(annotation=annotation)
        elif p.kind is inspect.Parameter.VAR_KEYWORD:
            found |= _named_options(annotation)
    return found


def _named_options(annotation: Any) -> dict[str, inspect.Parameter]:
    """What ``**options: Unpack[SomeTypedDict]`` accepts (PEP 692); nothing for other ``**``."""
    if typing.get_origin(annotation) is not typing.Unpack:
        return {}
    [options] = typing.get_args(annotation)
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_EMPTY if name in options.__required_keys__ else None,
            annotation=hint,
        )
        for name, hint in typing.get_type_hints(options).items()
    }


def accepts_anything(target: Any) -> bool:
    """Whether the constructor takes a bare ``**kwargs``: unknown keys are its own affair."""
    try:
        return any(
            p.kind is inspect.Parameter.VAR_KEYWORD
            and typing.get_origin(p.annotation) is not typing.Unpack
            for p in inspect.signature(target).parameters.values()
        )
    except ValueError:
        return True


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # an annotation imported only under TYPE_CHECKING: unchecked
        return {}


def is_required(parameter: inspect.Parameter) -> bool:
    """Whether the parameter has no default."""
    return parameter.default is _EMPTY


def mismatch(value: Any, annotation: Any) -> str | None:
    """What was expected, if a plain config value does not fit the annotation; None if it does.

    Only plain types are judged (numbers, strings, None, Literal, lists, tuples, dicts, unions of
    them); any other annotation is left to the constructor.
    """
    return None if _fits(value, annotation) else _describe(annotation)


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, a) for a in arguments)
    if origin is Literal:
        return value in arguments
    if annotation in (None, type(None)):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    if annotation is Path:
        return isinstance(value, (str, Path))
    base = origin or annotation
    if base is tuple:
        return isinstance(value, (list, tuple)) and _fits_tuple(value, arguments)
    if base in (list, Sequence):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            return False
        return not arguments or all(_fits(v, arguments[0]) for v in value)
    if base in (dict, Mapping):
        return isinstance(value, Mapping) and (
            not arguments or all(_fits(v, arguments[1]) for v in value.values())
        )
    if value is None:  # a class other than None's own wants an object
        return not inspect.isclass(annotation) or annotation in (Any, object, _EMPTY)
    return not isinstance(value, _PLAIN) or not _is_module(annotation)


_PLAIN = (int, float, str, bool, list, dict, type(None))


def _is_module(annotation: Any) -> bool:
    """Whether the annotation is a network class, for which no plain value can stand."""
    return inspect.isclass(annotation) and any(
        c.__module__ == "torch.nn.modules.module" for c in annotation.__mro__
    )


def _fits_tuple(value: Sequence[Any], arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(_fits(v, arguments[0]) for v in value)
    return len(value) == len(arguments) and all(map(_fits, value, arguments))


def _describe(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(annotation))
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in typing.get_args(annotation))
    if inspect.isclass(annotation) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def convert(value: Any, annotation: Any) -> Any:
    """A YAML value in the annotated type: lists become tuples and strings paths where asked."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        fitting = [a for a in members if _fits(value, a)]
        return convert(value, fitting[0]) if fitting else value
    if (typing.get_origin(annotation) or annotation) is tuple and isinstance(value, list):
        inner = [members[0]] * len(value) if members[1:] == (Ellipsis,) else list(members)
        inner += [Any] * (len(value) - len(inner))
        return tuple(map(convert, value, inner))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return Path(value) if annotation is Path and isinstance(value, str) else value
