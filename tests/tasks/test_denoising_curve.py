from pathlib import Path

import pytest
import torch

from visionlab.data.images import ImageData
from visionlab.proximal import LearnedProximalNetwork
from visionlab.proximal.baselines import tv_denoise
from visionlab.tasks.denoising_curve import DenoisingCurve, read_curves, total_variation_psnr
from visionlab.tasks.proximal_matching import ProximalMatching

LOG = """step,metric,value
9,train/loss,0.5
99,val/psnr_0.1,25.0
99,val/cpu_minutes,2.0
199,val/psnr_0.1,26.0
199,val/cpu_minutes,3.0
299,val/psnr_0.1,27.0
299,val/cpu_minutes,0.5
"""


class Squares(torch.utils.data.Dataset):
    """Bright squares on a dark ground."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict:
        image = torch.full((1, 24, 24), 0.2)
        image[:, 4 : 12 + i, 4:16] = 0.8
        return {"image": image}


@pytest.fixture
def run() -> tuple[ProximalMatching, ImageData]:
    task = ProximalMatching(LearnedProximalNetwork(1, 4, strides=(1,), noise_level=0.1))
    data = ImageData({"train": Squares(), "val": Squares()}, batch_size=2, mean=[0.0], std=[1.0])
    return task, data


def test_minutes_go_on_after_a_resumed_run(tmp_path: Path, run) -> None:
    (tmp_path / "metrics.csv").write_text(LOG)
    minutes, curves = read_curves(tmp_path / "metrics.csv")
    assert minutes == [2.0, 3.0, 3.5]  # the third is half a minute after a restart
    assert curves == {"0.1": [25.0, 26.0, 27.0]}
    rows = DenoisingCurve().run(*run, tmp_path)
    assert rows[-2] == {"CPU minutes": 3.5, "noise 0.1": pytest.approx(27.0)}
    assert rows[-1] == {"CPU minutes": "TV", "noise 0.1": pytest.approx(tv_of(run), abs=0.006)}
    assert (tmp_path / "pictures" / "denoising.png").stat().st_size > 1000


def tv_of(run) -> float:
    return total_variation_psnr(*run, 0.1)


def test_total_variation_is_scored_on_the_noise_of_the_validation(run) -> None:
    task, data = run
    errors = []
    for i, batch in enumerate(data.loader("val")):
        clean = batch["image"]
        noisy = clean + 0.1 * task.validation_noise(batch, i)
        found = [tv_denoise(noisy, 0.1 * w) for w in (0.2, 0.4, 0.7, 1.1, 2.1)]
        errors.append([-10 * (f - clean).square().flatten(1).mean(1).log10().mean() for f in found])
    best = torch.tensor(errors).mean(0).max()
    assert tv_of(run) == pytest.approx(float(best), abs=0.7)
    assert tv_of(run) > 24  # the noise alone leaves 20


def test_a_run_without_validation_has_no_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG[:40])
    assert DenoisingCurve().run(None, None, tmp_path) == []
    assert not (tmp_path / "pictures").exists()
