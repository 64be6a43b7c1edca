"""The import rules of the architecture, proved in fresh interpreters."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "visionlab"
ROOMS = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file())
PILLARS = {"masking", "proximal", "moe", "heads"}

# room -> rooms of the package that it may not import at module level
FORBIDDEN = {
    **{room: (PILLARS | {"data", "tasks", "rotation", "plots"}) - {room} for room in PILLARS},
    "rotation": PILLARS | {"data", "tasks", "plots"},
    "backbones": {"data", "tasks", "plots", "heads", "rotation", "masking"},
    "data": PILLARS | {"tasks", "rotation", "backbones", "plots"},
    "config": PILLARS | {"data", "tasks", "rotation", "backbones", "plots"},
}
NO_LIGHTNING = [*PILLARS, "rotation", "backbones", "plots", "config"]


def module_level_imports(path: Path) -> set[str]:
    """Modules that a file imports outside functions and TYPE_CHECKING blocks."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                found.update(a.name for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.update(f"{node.module}.{a.name}" for a in node.names)
                found.add(str(node.module))
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                if "TYPE_CHECKING" not in ast.unparse(getattr(node, "test", ast.Constant(0))):
                    visit(node.body)
                visit(getattr(node, "orelse", []))
            elif isinstance(node, ast.ClassDef):
                visit(node.body)

    visit(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_rooms_import_only_what_they_may(room):
    for path in (PACKAGE / room).rglob("*.py"):
        rooms = {m.split(".")[1] for m in module_level_imports(path) if m.startswith("visionlab.")}
        assert not rooms & FORBIDDEN[room], f"{path.relative_to(PACKAGE)} imports {rooms}"


@pytest.mark.parametrize("room", sorted(NO_LIGHTNING))
def test_components_know_no_lightning(room):
    for path in (PACKAGE / room).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = {n for n in module_level_imports(path) if n.split(".")[0] == "lightning"}
        assert not names, path
        assert "import lightning" not in text, path


def test_nothing_imports_tools():
    for path in PACKAGE.rglob("*.py"):
        assert not any(m.split(".")[0] == "tools" for m in module_level_imports(path)), path


def test_there_is_no_utils_module():
    assert not [p for p in PACKAGE.rglob("*") if p.stem in ("utils", "helpers", "misc", "common")]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_light_to_import(room):
    code = (
        f"import sys, visionlab.{room} as room; "
        "heavy = {'torch', 'lightning', 'numba', 'timm', 'cv2', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; print(*dir(room))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_exists_and_is_not_hidden_by_a_module(room):
    """Import all sub-modules first: the import system then binds their names in the package."""
    import importlib
    from types import ModuleType

    package = importlib.import_module(f"visionlab.{room}")
    files = [p.stem for p in (PACKAGE / room).glob("*.py") if p.stem != "__init__"]
    for name in package.__dir__():
        value = getattr(package, name)
        if isinstance(value, ModuleType):
            assert name in files or (PACKAGE / room / name).is_dir(), f"{room}.{name} is a module"


def test_the_numpy_core_of_rotation_loads_neither_torch_nor_numba():
    code = (
        "import time, sys; t = time.process_time(); import visionlab.rotation as r; "
        "r.Camera, r.RotationEstimator, r.RotationEstimate; d = time.process_time() - t; "
        "assert not {'torch', 'numba', 'cv2'} & set(sys.modules); print(d)"
    )
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                                    check=True).stdout) for _ in range(3)]  # fmt: skip
    assert min(seconds) < 0.5
