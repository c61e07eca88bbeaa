"""What networks cost, and small ones."""

import struct
from pathlib import Path

import torch
from torch import Tensor, nn

from helpers.golden import build
from lipsync_core.faces.landmark_model import LandmarkModel
from lipsync_core.models.face_parsing import FaceParsing, FaceParsingConfig


def macs(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions in one forward pass."""
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        nonlocal total
        # a transposed convolution spreads every input pixel, a plain one gathers every output pixel
        places = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
        total += layer.weight.numel() * places[0, 0].numel()

    hooks = [
        m.register_forward_hook(count)
        for m in model.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    with torch.inference_mode():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return total


# The parser

SMALL = FaceParsingConfig(stages=(4, 8, 8, 12), blocks=(1, 1, 1, 1), width=8, side=64)


def small() -> FaceParsing:
    return build(FaceParsing, SMALL)  # type: ignore[return-value]


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def floats(name: str, shape: tuple[int, ...], values: list[float]) -> bytes:
    dims = b"".join(field(1, n) for n in shape)
    return dims + field(2, 1) + field(8, name) + field(9, struct.pack(f"<{len(values)}f", *values))


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return (
        b"".join(field(1, name) for name in inputs)
        + field(2, output)
        + field(3, output)
        + field(4, kind)
    )


def tensor_info(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def onnx(slope: list[list[float]], base: list[float]) -> bytes:
    """A network whose outputs are ``base`` plus ``slope`` (3, outputs) times the picture's mean
    red, green and blue."""
    count = len(base)
    graph = b"".join(
        [
            field(1, node("GlobalAveragePool", ["data"], "pooled")),
            field(1, node("Flatten", ["pooled"], "flat")),
            field(1, node("Gemm", ["flat", "slope", "base"], "fc1")),
            field(2, "landmarks"),
            field(5, floats("slope", (3, count), [v for row in slope for v in row])),
            field(5, floats("base", (count,), base)),
            field(11, tensor_info("data", (1, 3, 192, 192))),
            field(12, tensor_info("fc1", (1, count))),
        ]
    )
    return field(1, 8) + field(2, "test") + field(7, graph) + field(8, field(2, 13))


def network(tmp_path: Path) -> LandmarkModel:
    """Red opens the mouth: upper lips (52..61) rise and lower ones sink by mean red / 255 * 0.1;
    green shifts all points."""
    red, green = [0.0] * 212, [0.001] * 212
    for point in range(52, 72):
        red[2 * point + 1] = (-0.1 if point < 62 else 0.1) / 255
    path = tmp_path / "Sprechmünder 2d106det.onnx"  # any path
    path.write_bytes(onnx([red, green, [0.0] * 212], [0.01 * (i % 7) for i in range(212)]))
    return LandmarkModel(path)
