"""Public checkpoints: every container, every name, every wrong file, and hostile archives that must
run nothing."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lipsync_core.errors import WeightsError
from lipsync_core.models import architectures, checkpoint

# old files are what we read
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Block(nn.Module):
    """Layers named as in the public Wav2Lip code."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs))
        self.sizes = [inputs, outputs]  # TorchScript writes such lists with functions of its own

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x)


class Generator(nn.Module):
    """A few of the public generator's keys, so small that a test can break it byte by byte."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.face_encoder_blocks = nn.ModuleList([nn.Sequential(Block(6, 2))])
        self.audio_encoder = nn.Sequential(Block(1, 2))
        self.face_decoder_blocks = nn.ModuleList([nn.Sequential(Block(2, 2))])
        self.output_block = nn.Sequential(Block(2, 2), nn.Conv2d(2, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.face_encoder_blocks:
            x = block(x)
        for block in self.face_decoder_blocks:
            x = block(x)
        return self.output_block(x)


MODEL = Generator().eval()
STATE = MODEL.state_dict()
OPTIMISER = {
    "state": {0: {"step": 7, "exp_avg": torch.zeros(3)}},
    "param_groups": [{"lr": 1e-4, "params": [0]}],
}
TRAINING = {"state_dict": STATE, "optimizer": OPTIMISER, "global_step": 258_000, "global_epoch": 88}
PARALLEL = OrderedDict((f"module.{key}", value) for key, value in STATE.items())


def same(found: dict[str, Tensor]) -> bool:
    return set(found) == set(STATE) and all(torch.equal(found[key], STATE[key]) for key in STATE)


def archive(model: nn.Module, *, scripted: bool) -> bytes:
    example = torch.zeros(1, 6, 12, 12)
    module = (
        torch.jit.script(model) if scripted else torch.jit.trace(model, example, check_trace=False)
    )
    stream = io.BytesIO()
    torch.jit.save(module, stream)
    return stream.getvalue()


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = MODEL

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "value",
    [
        STATE,
        PARALLEL,
        TRAINING,
        TRAINING | {"state_dict": PARALLEL},
        {"model": STATE, "optimizer": OPTIMISER},
        {"state_dict": STATE, "ema": {key: value + 1 for key, value in STATE.items()}},
        {key.replace("conv_block", "module.conv_block"): value for key, value in STATE.items()},
        {f"net.{key}": value for key, value in STATE.items()},
    ],
    ids=[
        "bare",
        "parallel",
        "training",
        "parallel training",
        "model key",
        "beside ema",
        "module inside",
        "wrapped",
    ],
)
def test_checkpoints(tmp_path: Path, value: object, old: bool) -> None:
    path = tmp_path / "weights.safetensors"  # names mean nothing
    torch.save(value, path, _use_new_zipfile_serialization=not old)
    assert checkpoint.file_format(path) == "checkpoint"
    tensors = checkpoint.read_tensors(path)
    assert same(tensors)
    assert architectures.recognize(tensors, path).kind == "generator"


@pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "traced"])
@pytest.mark.parametrize("model", [MODEL, Wrapper().eval()], ids=["plain", "wrapped"])
def test_torchscript(tmp_path: Path, model: nn.Module, scripted: bool) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(archive(model, scripted=scripted))
    assert checkpoint.file_format(path) == "TorchScript archive"
    assert same(checkpoint.read_tensors(path))


def test_torchscript_views_and_half(tmp_path: Path) -> None:
    model = Generator().eval().half()
    model.output_block[1].weight = nn.Parameter(
        model.output_block[1].weight.transpose(0, 1).contiguous().transpose(0, 1)
    )
    path = tmp_path / "half.pt"
    path.write_bytes(archive(model, scripted=True))
    found = checkpoint.read_tensors(path)
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file({f"module.{key}": value for key, value in STATE.items()}, path)
    assert checkpoint.file_format(path) == "safetensors"
    assert same(checkpoint.read_tensors(path))


_UNET = "face_encoder_blocks.8.0.x audio_encoder.0.x face_decoder_blocks.0.0.x output_block.1.x"
KEYS = {
    "a 384 px derivative of Wav2Lip with spatial attention": (
        f"{_UNET} audio_refine.0.x sam.sa.conv1.weight"
    ),
    "a 384 px derivative of Wav2Lip": f"{_UNET} audio_refine.0.x",
    "a 288 px derivative of Wav2Lip (PReLU)": (
        f"{_UNET} audio_encoder.0.act.weight face_decoder_blocks.1.0.act.weight"
    ),
    "a 288 px derivative of Wav2Lip (PReLU on its way up)": (
        f"{_UNET} face_decoder_blocks.1.0.act.weight"
    ),
    "a 288 px derivative of Wav2Lip": _UNET,
    "a Wav2Lip generator": (
        "face_encoder_blocks.0.0.x audio_encoder.0.x face_decoder_blocks.0.0.x output_block.1.x"
    ),
    "a Wav2Lip lip-sync expert": "face_encoder.0.x audio_encoder.0.x",
    "a Wav2Lip quality discriminator": "face_encoder_blocks.0.0.x binary_pred.0.weight",
    "the SyncNet v2 sync scorer": (
        "netcnnaud.0.weight netcnnlip.0.weight netfcaud.0.weight netfclip.0.weight"
    ),
    "the S3FD face detector": "conv1_1.weight conv3_3_norm.weight conv3_3_norm_mbox_conf.weight",
    "syncnet_python's S3FD face detector (sfd_face)": (
        "vgg.0.weight L2Norm3_3.weight loc.0.weight conf.0.weight"
    ),
    "the FID Inception network": "Conv2d_1a_3x3.conv.weight Mixed_7c.branch_pool.bn.bias fc.weight",
    "the BiSeNet face parser": (
        "cp.resnet.conv1.weight cp.arm16.conv.bn.bias ffm.conv1.weight conv_out32.conv_out.weight"
    ),
}


def test_every_public_network_is_recognised_by_its_keys() -> None:
    assert set(KEYS) == {network.title for network in architectures.NETWORKS}
    for title, keys in KEYS.items():
        assert (
            architectures.recognize(dict.fromkeys(keys.split(), torch.zeros(1)), Path("x")).title
            == title
        )


def test_an_unknown_network_is_described() -> None:
    with pytest.raises(
        WeightsError,
        match=r"unknown network \(2 tensors: a\.weight, b\.bias .*the S3FD face detector",
    ):
        architectures.recognize({"a.weight": torch.zeros(1), "b.bias": torch.zeros(1)}, Path("x"))


def saved(value: object, *, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def zipped(entries: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return stream.getvalue()


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "html": (lambda: b"\n<!DOCTYPE html><html><title>Quota exceeded</title>", "is a web page"),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "is a git-lfs pointer",
    ),
    "text": (lambda: b"Invalid username or password.", "is text beginning 'Invalid username"),
    "onnx": (lambda: b"\x08\x06\x12\x07pytorch\x1a\x031.7:\xd3\x98", "is an ONNX model"),
    "gguf": (lambda: b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "noise": (lambda: b"\xfe\xfd\xfc\xfb", "is of no known kind"),
    "pickle": (
        lambda: pickle.dumps({"state_dict": 1}),
        "is a Python pickle that torch.save did not write",
    ),
    "zip": (lambda: zipped({"word/document.xml": b"<xml/>"}), "is a zip archive without data.pkl"),
    "truncated zip": (lambda: saved(TRAINING)[:5000], "is a truncated or damaged zip archive"),
    "truncated legacy": (
        lambda: saved(TRAINING, old=True)[:-100],
        "is a damaged or truncated checkpoint",
    ),
    "truncated legacy pickle": (
        lambda: saved(TRAINING, old=True)[:300],
        "is a damaged or truncated checkpoint",
    ),
    "truncated TorchScript": (
        lambda: archive(MODEL, scripted=True)[:5000],
        "is a truncated or damaged zip archive",
    ),
    "frozen TorchScript": (
        lambda: archive(torch.jit.freeze(torch.jit.script(MODEL)), scripted=True),
        "no named tensors in it",
    ),
    "whole module": (
        lambda: saved(nn.Linear(2, 2)),
        r"asks for torch\.nn\.modules\.linear\.Linear, which was refused",
    ),
    "numpy scalar": (
        lambda: saved(TRAINING | {"loss": np.float64(1)}),
        r"asks for numpy\S+scalar, which was refused",
    ),
    "one tensor": (lambda: saved(torch.zeros(3)), "holds a Tensor; expected a state dict"),
    "no state dict": (
        lambda: saved({"epoch": 3, "args": "x"}),
        "found none; its keys are epoch, args",
    ),
    "two state dicts": (lambda: saved({"a": STATE, "b": STATE}), "found several: a, b"),
    "two names in one": (lambda: saved(STATE | PARALLEL), "tensors share names"),
    "truncated safetensors": (
        lambda: struct.pack("<Q", 5000) + b'{"a":',
        "is damaged or truncated safetensors",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_what_it_is(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    path = tmp_path / "wav2lip.pth"
    path.write_bytes(content())
    with pytest.raises(WeightsError, match=message) as caught:
        checkpoint.read_tensors(path)
    assert str(path) in str(caught.value)
    # torch's own text advises to run the file's code
    assert "weights_only" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        checkpoint.file_format(tmp_path / "none")
    with pytest.raises(WeightsError, match="is a folder"):
        checkpoint.file_format(tmp_path)


# ---- hostile archives: pickles written by hand, opcode by opcode (protocol 2)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if 0 <= value < 256 else b"\x8a\x08" + struct.pack("<q", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    *,
    shape: bytes,
    strides: bytes,
    size: int = 4,
    key: str = "0",
    offset: int = 0,
    dtype: bytes = b"FloatStorage",
) -> bytes:
    storage = (
        b"("
        + text("storage")
        + b"ctorch\n"
        + dtype
        + b"\n"
        + text(key)
        + text("cpu")
        + number(size)
        + b"tQ"
    )
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + shape
        + strides
        + b"\x89"
        + hooks
        + b"tR"
    )


GOOD = tensor(shape=numbers(4), strides=numbers(1))
MODULE = b"c__torch__\nM\n)\x81"


def root(*attributes: bytes) -> bytes:
    """A module whose attributes (name, value, name, value ...) are these."""
    return b"\x80\x02" + MODULE + b"}(" + b"".join(attributes) + b"ub."


def hostile(data: bytes, **entries: bytes) -> bytes:
    parts = {
        "x/data.pkl": data,
        "x/data/0": struct.pack("<4f", 1, 2, 3, 4),
        "x/constants.pkl": b"\x80\x02).",
    }
    return zipped(
        parts | {f"x/{name.replace('_', '/')}": content for name, content in entries.items()}
    )


def system(command: str) -> bytes:
    return f"c{os.system.__module__}\nsystem\n".encode() + b"(" + text(command) + b"tR"


def test_handwritten_archives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(hostile(root(text("weight"), GOOD)))
    assert checkpoint.read_tensors(path)["weight"].tolist() == [1, 2, 3, 4]


def view(**changes: object) -> bytes:
    given = {"shape": numbers(4), "strides": numbers(1)} | changes
    return root(text("weight"), tensor(**given))  # type: ignore[arg-type]


LAUGHS = b"".join(
    MODULE + b"}(" + b"".join(text(c) + b"h" + bytes([k]) for c in "abcd") + b"ubq" + bytes([k + 1])
    for k in range(40)
)
HOSTILE: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda command: hostile(root(text("weight"), system(command))),
    "builtins.eval": lambda _: hostile(root(text("w"), b"cbuiltins\neval\n(" + text("1") + b"tR")),
    "getattr": lambda _: hostile(
        root(text("w"), b"cbuiltins\ngetattr\n(" + GOOD + text("__class__") + b"tR")
    ),
    "dotted name": lambda _: hostile(
        root(text("w"), b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n")
    ),
    "torch.load": lambda _: hostile(
        root(text("w"), b"ctorch\nload\n(" + text("/etc/passwd") + b"tR")
    ),
    "stack global": lambda _: hostile(b"\x80\x04" + text("os") + text("system") + b"\x93."),
    "instance": lambda command: hostile(b"\x80\x02(" + text(command) + b"ios\nsystem\n."),
    "extension": lambda _: hostile(b"\x80\x02\x82\x01."),
    "altered function": lambda _: hostile(
        root(
            text("w"),
            b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__name__") + text("x") + b"s\x86b",
        )
    ),
    "altered module class": lambda _: hostile(
        root(text("w"), b"c__torch__\nM\nN}" + text("__setstate__") + text("x") + b"s\x86b")
    ),
    "altered tensor": lambda _: hostile(
        root(text("w"), GOOD + b"N}" + text("storage") + text("x") + b"s\x86b")
    ),
    "huge memo": lambda _: hostile(b"\x80\x02)r\xff\xff\xff\x7f."),
    "huge text": lambda _: hostile(b"\x80\x02X\xff\xff\xff\x7fa."),
    "exponential tree": lambda _: hostile(b"\x80\x02" + MODULE + b"}bq\x00" + LAUGHS + b"."),
    "itself inside itself": lambda _: hostile(
        b"\x80\x02" + MODULE + b"q\x00}" + text("a") + b"h\x00sb."
    ),
    "name of a tuple": lambda _: hostile(root(b")", GOOD)),
    "state of a list": lambda _: hostile(b"\x80\x02" + MODULE + b"]b."),
    "huge storage": lambda _: hostile(view(size=1 << 50, shape=numbers(1 << 50))),
    "stride of nothing": lambda _: hostile(view(shape=numbers(1 << 50), strides=numbers(0))),
    "beyond the end": lambda _: hostile(view(offset=1)),
    "negative offset": lambda _: hostile(view(offset=-4)),
    "shape of text": lambda _: hostile(view(shape=text("4"))),
    "one stride missing": lambda _: hostile(view(shape=numbers(2, 2))),
    "storage out of the archive": lambda _: hostile(view(key="../../../etc/passwd")),
    "no such storage": lambda _: hostile(view(key="7")),
    "short storage": lambda _: hostile(view(), data_0=b"\0" * 15),
    "unknown storage": lambda _: hostile(view(dtype=b"UntypedStorage")),
    "big-endian": lambda _: hostile(view(), byteorder=b"big"),
    "zip bomb": lambda _: zipped(
        {"x/data.pkl": view(size=25 << 20), "x/data/0": bytes(100 << 20), "x/constants.pkl": b""},
        method=zipfile.ZIP_DEFLATED,
    ),
    "broken pickle": lambda _: hostile(b"\x80\x02((("),
    "no pickle": lambda _: hostile(b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    path, witness = tmp_path / "wav2lip.pt", tmp_path / "ran"
    path.write_bytes(HOSTILE[name](f"echo ran > {witness}"))
    with pytest.raises(WeightsError, match="TorchScript archive; it was refused and not run"):
        checkpoint.read_tensors(path)
    assert not witness.exists()
    path.write_bytes(hostile(root(text("weight"), GOOD)))
    # and left nothing altered behind
    assert checkpoint.read_tensors(path)["weight"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_a_hostile_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, old: bool) -> None:
    witness = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"echo ran > {witness}",)

    path = tmp_path / "wav2lip.pth"
    path.write_bytes(saved({"state_dict": STATE, "x": Hostile()}, old=old))
    with pytest.raises(
        WeightsError,
        match=rf"asks for {os.system.__module__}\.system, which was refused and not run",
    ):
        checkpoint.read_tensors(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [lambda: saved(STATE), lambda: saved(STATE, old=True), lambda: archive(MODEL, scripted=True)],
    ids=["zip", "legacy", "TorchScript"],
)
def test_damage_anywhere_is_an_error_of_ours_or_harmless(
    tmp_path: Path, content: Callable[[], bytes]
) -> None:
    whole = content()
    random = np.random.RandomState(0)
    path = tmp_path / "wav2lip.pth"
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[random.randint(len(whole))] ^= 1 << random.randint(8)
        path.write_bytes(damaged)
        try:
            tensors = checkpoint.read_tensors(path)
        except WeightsError:
            continue
        assert all(isinstance(value, Tensor) for value in tensors.values())
