"""A checkpoint, a config or a data file from a stranger runs no code."""

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import visionlab
from visionlab import checkpoint
from visionlab import config as configs
from visionlab.backbones import create_backbone
from visionlab.backbones.raft import raft_small
from visionlab.backbones.weights import load_encoder_weights
from visionlab.checkpoint import CheckpointError
from visionlab.config import ConfigError
from visionlab.data.arrays import array_images
from visionlab.masking.bank import load_bank
from visionlab.masking.official_weights import load_official_encoder
from visionlab.proximal import load_official

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import evaluate
import export
import train

MODEL = {"name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 6, "depth": 1}


@pytest.fixture
def pwned(tmp_path):
    """A path that no test may find afterwards."""
    path = tmp_path / "pwned"
    yield path
    assert not path.exists(), "a stranger's code has run"


class Calls:
    """Pickles into a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def opcodes(pwned: Path) -> dict[str, bytes]:
    """Pickles that would make the file, each by other opcodes."""
    text = f"open({str(pwned)!r}, 'w')".encode()
    command = f"touch {pwned}".encode()
    return {
        "reduce": pickle.dumps({"state_dict": Calls(eval, text.decode())}, protocol=2),
        "global": b"cposix\nsystem\n(V" + command + b"\ntR.",
        "stack_global": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c"
        + bytes([len(text)]) + text + b"\x85R.",
        "inst": b"(V" + command + b"\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\nV" + command + b"\no.",
        "newobj": b"\x80\x02cbuiltins\neval\nV" + text + b"\n\x85\x81.",
        "build": pickle.dumps(Calls(os.system, command.decode()), protocol=0)[:-1] + b"}b.",
    }  # fmt: skip


def archive(data: bytes, path: Path) -> Path:
    """The pickle as torch's zip format holds it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return path


@pytest.mark.parametrize("name", list(opcodes(Path("x"))))
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_opcode_of_a_pickle_runs(name, zipped, pwned, tmp_path):
    data, path = opcodes(pwned)[name], tmp_path / "evil.ckpt"
    archive(data, path) if zipped else path.write_bytes(data)
    with pytest.raises(CheckpointError):
        visionlab.load(path)


def test_no_pickle_in_a_nested_archive_or_a_script_runs(pwned, tmp_path):
    evil = opcodes(pwned)["global"]
    inner = archive(evil, tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "evil.ckpt", "w") as file:
        file.writestr("archive/data.pkl", inner)
        for member in ("constants.pkl", "code/__torch__.py", "data/0", "../../pwned", "extra/x"):
            file.writestr(f"archive/{member}", evil)
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "evil.ckpt")


def test_members_that_leave_the_folder_are_written_nowhere(pwned, tmp_path):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    checkpoint.save({"state_dict": {"w": torch.ones(2)}}, folder / "m.ckpt")
    with zipfile.ZipFile(folder / "m.ckpt", "a") as file:
        file.writestr("../../pwned", b"x")
        file.writestr(str(pwned), b"x")
    with pytest.raises(CheckpointError, match="not in a subdirectory"):
        checkpoint.read(folder / "m.ckpt")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "er", "m.ckpt"]


def test_records_that_unfold_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(CheckpointError, match="is compressed"):
        checkpoint.read(tmp_path / "bomb.ckpt")


def doors(path: Path, folder: Path) -> dict[str, tuple]:
    """Every command that reads a checkpoint."""
    return {
        "train": (train.main, [str(path)]),
        "export": (export.main, [str(path), str(folder / "e.safetensors")]),
        **{
            command: (evaluate.main, [command, str(path)])
            for command in ("frozen", "restore", "certify", "tasks")
        },
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", list(doors(Path(), Path())))
def test_no_tool_runs_a_pickle(door, pwned, tmp_path, capsys):
    path = archive(opcodes(pwned)["reduce"], tmp_path / "last.ckpt")
    main, arguments = doors(path, tmp_path)[door]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "error: " in error
    assert "holds objects other than plain data" in error


@pytest.mark.parametrize(
    "load",
    [
        checkpoint.read,
        load_official,
        raft_small,
        lambda path: load_encoder_weights(create_backbone("vit", **_without_name()), path),
        lambda path: load_official_encoder(create_backbone("vit", **_without_name()), path),
    ],
    ids=["read", "load_official", "raft", "load_encoder_weights", "load_official_encoder"],
)
def test_no_reader_of_weights_runs_a_pickle(load, pwned, tmp_path):
    with pytest.raises(CheckpointError, match="other than plain data"):
        load(archive(opcodes(pwned)["reduce"], tmp_path / "evil.pth"))


def _without_name():
    return {k: v for k, v in MODEL.items() if k != "name"}


# ---------------------------------------------------------------- configs


def hostile(target: str, pwned: Path) -> list[dict]:
    """Configs that name ``target`` wherever a component may stand."""
    node = {"_target_": target, "command": f"touch {pwned}"}
    data = {"name": "images", "datasets": {"train": {"name": "fashion_mnist"}}}
    task = {"name": "masked_pretraining", "model": {"name": "masked_autoencoder", "backbone": node}}
    return [
        {"task": node, "data": data},
        {"task": task, "data": data},
        {"task": task | {"model": node}, "data": data},
        {"task": {"name": "rotation"}, "data": {**data, "datasets": {"train": node}}},
        {"task": {"name": "rotation"}, "data": data, "evaluations": [node]},
        {"task": {"name": "multitask", "model": {"name": "multitask", "heads": [node]}},
         "data": data},
    ]  # fmt: skip


TARGETS = ["os.system", "builtins.eval", "subprocess.run", "torch.hub.load", "runpy.run_path",
           "antigravity.webbrowser"]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("place", range(6))
def test_a_strangers_config_calls_and_imports_nothing(target, place, pwned, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(hostile(target, pwned)[place]))
    below = tmp_path / "below.yaml"
    below.write_text(yaml.safe_dump({"_base_": "c.yaml", "output": str(tmp_path / "run")}))
    for arguments in ([str(path)], [str(below)], [str(below), "--check"]):
        assert train.main(arguments) == 1
        assert f"refuses to call '{target}'; add --trust-code" in capsys.readouterr().err
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("place", range(6))
def test_a_strangers_checkpoint_resumes_nothing_foreign(place, pwned, tmp_path, capsys):
    config = hostile("os.system", pwned)[place]
    stamp = checkpoint.metadata(config)
    checkpoint.save(
        {"state_dict": {}, "global_step": 1, "visionlab": stamp}, tmp_path / "last.ckpt"
    )
    for main, arguments in doors(tmp_path / "last.ckpt", tmp_path).values():
        assert main(arguments) == 1
        assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("doors", "key", "goes_on"),
    [
        (["restore", "certify"], "model", "holds a Linear; expected a learned proximal network"),
        (["frozen", "prior", "tasks", "surgery"], "task", "the weights of this Linear"),
        (["export"], "model", "Linear has no timm backbone to export"),
    ],
)
def test_commands_call_the_code_of_a_checkpoint_only_on_trust(
    doors, key, goes_on, tmp_path, capsys, monkeypatch
):
    small = torch.nn.Linear(1, 1)  # of no kind that the commands could go on with
    monkeypatch.setattr(torch.nn, "Own", lambda: small, raising=False)
    path = tmp_path / "last.ckpt"
    stamp = checkpoint.metadata({key: {"_target_": "torch.nn.Own"}})
    state = {f"model.{k}": v for k, v in small.state_dict().items()}
    checkpoint.save({"state_dict": state, "visionlab": stamp}, path)
    for door in doors:
        main, command = evaluate.main, [door, str(path)]
        if door == "export":
            main, command = export.main, [str(path), str(tmp_path / "encoder.pth")]
        assert main(command) == 1
        refused = capsys.readouterr().err
        assert "refuses to call 'torch.nn.Own' from a file; add --trust-code" in refused
        assert main([*command, "--trust-code"]) == 1
        assert goes_on in capsys.readouterr().err


def test_trusted_code_is_called(tmp_path, capsys):
    config = hostile("os.system", tmp_path / "never")[0] | {"output": str(tmp_path / "run")}
    config["task"] = {"_target_": "collections.OrderedDict"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert train.main([str(tmp_path / "c.yaml"), "--trust-code", "--check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch pwned']\n", "python/object/apply:os.system"),
        ("a: &a [*a]\n", "write out to more than"),
        ("_base_: [1]\n", "expected a path"),
        ("_base_: /dev/zero\n", "no file 'zero'"),
        ("_base_: ../../nowhere.yaml\n", "no file 'nowhere.yaml'"),
        ("\x00", "not readable as YAML"),
        ("seed: ${oc.env:NO_SUCH_VARIABLE}\n", "interpolation"),
    ],
    ids=range(7),
)
def test_a_strangers_yaml_reaches_nothing(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        configs.read(tmp_path / "c.yaml")


def test_a_network_name_reaches_no_network():
    for name in ("hf-hub:stranger/model", "hf_hub:stranger/model", "local-dir:/tmp"):
        with pytest.raises(ConfigError, match="backbone"):
            configs.build({"name": name}, key="backbone")


# ---------------------------------------------------------------- data


def test_archives_hold_no_objects(pwned, tmp_path):
    bad = np.array([Calls(open, str(pwned), "w")], dtype=object)
    np.savez(tmp_path / "bad.npz", bad=bad, images=bad, labels=bad)
    np.save(tmp_path / "bad.npy", bad)
    for read, name in ((load_bank, "bad.npz"), (load_bank, "bad.npy"), (array_images, "bad.npz")):
        with pytest.raises(ValueError, match="allow_pickle"):
            read(tmp_path / name)


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    good = path.read_bytes()
    path.write_bytes(good[:90] + b"\xff" + good[91:])
    with pytest.raises(ValueError, match=r"images\.npz is damaged"):
        array_images(path)


# ---------------------------------------------------------------- fuzz

FUZZ = settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
GOOD = yaml.safe_dump(hostile("x.y", Path("x"))[0] | {"task": {"name": "rotation"}}).encode()


def good_checkpoint() -> bytes:
    file = io.BytesIO()
    content = {"state_dict": {"model.w": torch.arange(6.0)}, "global_step": 3,
               "visionlab": checkpoint.metadata({"model": MODEL})}  # fmt: skip
    torch.save(content, file)
    return file.getvalue()


CHECKPOINT = good_checkpoint()
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=4)


def changed(data: bytes, share: float, flips: list[tuple[float, int]]) -> bytes:
    """``data`` cut short and with bits turned."""
    out = bytearray(data[: round(share * len(data))])
    for place, bit in flips:
        if out:
            out[round(place * (len(out) - 1))] ^= 1 << bit
    return bytes(out)


@FUZZ
@given(share=st.floats(0, 1), flips=CHANGES)
@example(share=1.0, flips=[])
def test_any_damage_to_a_config_is_a_sentence(share, flips, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(changed(GOOD, share, flips))
    assert train.main([str(path), "--check"]) in (0, 1)


@FUZZ
@given(share=st.one_of(st.just(1.0), st.floats(0, 1)), flips=CHANGES)
def test_any_damage_to_a_checkpoint_is_a_sentence(share, flips, tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(changed(CHECKPOINT, share, flips))
    for main, arguments in doors(path, tmp_path).values():
        assert main(arguments) == 1
    try:
        content = checkpoint.read(path)
    except CheckpointError:
        return
    assert torch.equal(content["state_dict"]["model.w"], torch.arange(6.0))
