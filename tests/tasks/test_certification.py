from pathlib import Path

import pytest

from tests.tasks.restoration_fixture import parse, save_network, save_vectors
from visionlab.tasks import certification, restoration


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_network(tmp_path)


def test_certify_command_reports_and_returns_its_verdict(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certification.run(parse(certification, str(saved), "--sizes", "13x17", "8x8")) == 0
    printed = capsys.readouterr().out
    assert printed.count("HOLDS") == 2
    assert "(2, 1, 13, 17) in float64" in printed
    assert "every check holds" in printed
    with pytest.raises(ValueError, match="a size is HxW in pixels, such as 37x53; got '37'"):
        certification.run(parse(certification, str(saved), "--sizes", "37"))
    with pytest.raises(ValueError, match="--samples is at least 1, got -1"):
        certification.run(parse(certification, str(saved), "--samples", "-1"))


def test_certify_command_takes_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save_vectors(tmp_path))
    assert certification.run(parse(certification, path)) == 0
    assert "(2, 1) in float64" in capsys.readouterr().out
    with pytest.raises(ValueError, match="takes vectors of one length, leave --sizes out"):
        certification.run(parse(certification, path, "--sizes", "37x53"))
    with pytest.raises(ValueError, match="--images are for networks of images"):
        certification.run(parse(certification, path, "--images", "scikit-image"))


def test_certify_command_fails_on_damaged_weights(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = restoration.load_prox(saved)
    for name, weight in net.named_parameters():
        if "heads" in name:
            weight.data.fill_(-1.0)
    monkeypatch.setattr(restoration, "load_prox", lambda path, **trust: net)
    assert certification.run(parse(certification, str(saved), "--sizes", "12x12")) == 1
    printed = capsys.readouterr().out
    assert "FAILS" in printed
    assert "a weight that must be nonnegative is -1" in printed
