import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import dev


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Commands that would have been run; the environment is a scratch folder."""
    seen = []

    def record(command):
        seen.append([str(c) for c in command])
        return 0

    monkeypatch.setattr(dev, "run", record)
    monkeypatch.setattr(dev, "environment_of", lambda python: str(tmp_path))
    return seen


def test_train_installs_once_and_runs_the_quickstart(commands):
    assert dev.main(["train", "--here"]) == 0
    assert commands[0][1:5] == ["-m", "pip", "--python", sys.executable]
    assert commands[1][1:] == ["tools/train.py", "configs/quickstart.yaml"]
    commands.clear()
    assert dev.main(["train", "--here", "configs/base.yaml", "seed=1"]) == 0
    assert [c[1:] for c in commands] == [["tools/train.py", "configs/base.yaml", "seed=1"]]


def test_overrides_alone_go_to_the_quickstart(commands):
    dev.main(["train", "--here", "seed=1"])
    assert commands[-1][1:] == ["tools/train.py", "configs/quickstart.yaml", "seed=1"]


def test_test_runs_format_lint_types_and_tests(commands):
    assert dev.main(["test", "--here"]) == 0
    assert commands[0][-1].endswith("[dev]")
    assert [c[2] for c in commands[1:]] == ["ruff", "ruff", "mypy", "pytest"]
    commands.clear()
    dev.main(["test", "--here", "tests/test_registry.py"])
    assert [c[2:] for c in commands] == [["pytest", "tests/test_registry.py"]]


def test_a_failed_installation_is_not_stamped(commands, monkeypatch):
    monkeypatch.setattr(dev, "run", lambda command: commands.append(command) or 3)
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            dev.main(["train", "--here"])
        assert stop.value.code == 3
    assert len(commands) == 2


def test_exit_status_of_the_tests_is_passed_on(monkeypatch, commands):
    monkeypatch.setattr(dev, "run", lambda command: 5 if "pytest" in command else 0)
    assert dev.main(["test", "--here", "-x"]) == 5


def test_help_and_unknown_words(capsys):
    assert dev.main(["--help"]) == 0
    assert dev.main(["tset"]) == 2
    assert "dev.py train" in capsys.readouterr().out


def test_runs_without_the_package_installed():
    """Only the standard library: -I -S hides site-packages."""
    path = Path(dev.__file__)
    done = subprocess.run([sys.executable, "-I", "-S", str(path), "--help"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0
    assert "dev.py test" in done.stdout
