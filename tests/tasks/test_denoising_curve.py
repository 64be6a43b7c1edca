from pathlib import Path

import pytest

from visionlab.tasks.denoising_curve import DenoisingCurve, read_curves

LOG = """step,metric,value
9,train/loss,0.5
99,val/psnr_0.1,25.0
99,val/cpu_minutes,2.0
199,val/psnr_0.1,26.0
199,val/cpu_minutes,3.0
299,val/psnr_0.1,27.0
299,val/cpu_minutes,0.5
"""


def test_minutes_go_on_after_a_resumed_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG)
    minutes, curves = read_curves(tmp_path / "metrics.csv")
    assert minutes == [2.0, 3.0, 3.5]  # the third is half a minute after a restart
    assert curves == {"0.1": [25.0, 26.0, 27.0]}
    rows = DenoisingCurve().run(None, None, tmp_path)
    assert rows[-1] == {"CPU minutes": 3.5, "noise 0.1": pytest.approx(27.0)}
    assert (tmp_path / "pictures" / "denoising.png").stat().st_size > 1000


def test_a_run_without_validation_has_no_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG[:40])
    assert DenoisingCurve().run(None, None, tmp_path) == []
    assert not (tmp_path / "pictures").exists()
