import pytest
import torch
from official import OfficialMlpTwin, OfficialTwin, gradient

from visionlab.proximal.certificate import certify
from visionlab.proximal.compat import OfficialPotential, load_official
from visionlab.proximal.network import ProximalNetwork

# torch itself calls torch.jit.script when forward-mode differentiation is first used
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


def twin(layout: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    if layout == "mlp":
        return OfficialMlpTwin(2, 7, 3, beta=10.0), torch.randn(5, 2)
    size, beta, alpha = {"128": (128, 100.0, 1e-6), "mnist": (28, 10.0, 0.01)}[layout]
    channels = 3 if layout == "128" else 1
    return OfficialTwin(size, channels, 5, beta=beta, alpha=alpha), torch.rand(
        2, channels, size, size
    )


@pytest.mark.parametrize("layout", ["128", "mnist", "mlp"])
def test_official_weights_give_the_official_output(layout, tmp_path):
    reference, x = twin(layout)
    torch.save({"model_state_dict": reference.state_dict()}, tmp_path / "official.pt")
    net = load_official(tmp_path / "official.pt")
    expected = reference(x).detach()
    with torch.no_grad():
        assert torch.linalg.norm(net(x) - expected) <= 1e-5 * torch.linalg.norm(expected)
    net, reference, x = net.double(), reference.double(), x.double()
    assert torch.allclose(net(x), gradient(reference.potential, x), rtol=1e-8, atol=1e-10)
    # the constant of psi is not kept
    shift = net.potential(x) - reference.potential(x)
    assert torch.allclose(shift, shift[:1].expand(len(x)), atol=1e-9)


def test_official_names_of_data_parallel_runs_are_read():
    reference, x = twin("mnist")
    state = {f"module.{k}": v for k, v in reference.state_dict().items()}
    assert load_official(state)(x).shape == x.shape


def test_negative_weights_are_refused():
    reference, _ = twin("mnist")
    state = reference.state_dict()
    state["lin.2.weight"][0, 0, 0, 0] = -0.5
    with pytest.raises(ValueError, match=r"hidden\.1\.weight.*nonnegative.*1 entries.*-0\.5"):
        load_official(state)


def test_a_foreign_checkpoint_is_refused():
    with pytest.raises(ValueError, match=r"no official LPN checkpoint.*got conv\.weight"):
        load_official({"conv.weight": torch.zeros(3)})
    for foreign in (None, [1, 2], {"lin.0.weight": 3}, {"model_state_dict": None}):
        with pytest.raises(ValueError, match="expected a mapping of names to tensors"):
            load_official(foreign)
    reference, _ = twin("mnist")
    state = reference.state_dict()
    with pytest.raises(ValueError, match=r"layout 'mnist': .*'res.1.bias'"):
        load_official({k: v for k, v in state.items() if k != "res.1.bias"})
    with pytest.raises(ValueError, match="has another shape"):
        load_official({**state, "lin.1.weight": torch.zeros(2, 2, 3, 3)})
    with pytest.raises(FileNotFoundError, match="expected an official LPN checkpoint"):
        load_official("nowhere.pt")


def test_the_official_network_takes_one_size():
    net = ProximalNetwork(OfficialPotential("mnist", 1, 4, alpha=0.01, beta=10.0))
    with pytest.raises(ValueError, match="takes 28 x 28 images only, got 32 x 32"):
        net(torch.rand(1, 1, 32, 32))


def test_unknown_layout():
    with pytest.raises(ValueError, match="layout is '128' or 'mnist'"):
        OfficialPotential("256")


class Stitched(torch.nn.Module):
    """The official way to larger images: overlapping patches, averaged by a non-uniform count."""

    def __init__(self, net: ProximalNetwork, size: int, stride: int) -> None:
        super().__init__()
        self.net, self.size, self.stride = net, size, stride

    def forward(self, x):
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        rows, columns = (range(0, n - self.size + 1, self.stride) for n in x.shape[-2:])
        for i in rows:
            for j in columns:
                patch = x[..., i : i + self.size, j : j + self.size]
                margins = (j, x.shape[-1] - j - self.size, i, x.shape[-2] - i - self.size)
                total = total + torch.nn.functional.pad(self.net(patch), margins)
                count = count + torch.nn.functional.pad(torch.ones_like(patch), margins)
        return total / count


def test_patch_stitching_is_no_prox():
    reference, _ = twin("mnist")
    net = load_official(reference.state_dict())
    x = torch.rand(1, 1, 42, 42, dtype=torch.float64)
    assert certify(net, x[..., :28, :28]).holds
    report = certify(Stitched(net, 28, 14), x)
    assert not report.holds
    assert report.symmetry > 0.01
    assert "not a gradient" in report.failures[0]
