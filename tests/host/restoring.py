"""Run inside the host's interpreter, which has spandrel: networks of its own architectures, with
random weights, go through our loader and restore faces. Writes one line of JSON per file.

    python restoring.py FOLDER
"""

import json
import sys
import time
from pathlib import Path

from prepare import prepare_torchvision

prepare_torchvision()
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402
from spandrel.architectures.GFPGAN import GFPGAN  # noqa: E402
from spandrel.architectures.RestoreFormer import RestoreFormer  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from lipsync_core.errors import WeightsError  # noqa: E402
from lipsync_core.image.affine import FFHQ  # noqa: E402
from lipsync_core.options import Restore  # noqa: E402
from lipsync_core.pipelines.restore import SIZE, load_restorer, restored  # noqa: E402
from lipsync_core.types import FaceTrack, Frames  # noqa: E402


def saved(folder: Path) -> dict[str, Path]:
    """Files as they are published: BasicSR's .pth with an average, and safetensors."""
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {
        "gfpgan": GFPGAN(),
        "restoreformer": RestoreFormer(),
        "esrgan": ESRGAN(num_blocks=1),
    }
    try:
        from spandrel_extra_arches.architectures.CodeFormer import CodeFormer
    except ImportError:
        pass
    else:
        networks["codeformer"] = CodeFormer()
    paths: dict[str, Path] = {}
    for name, network in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        paths[name] = folder / f"{name}.pth"
        torch.save({"params": tensors, "params_ema": tensors}, paths[name])
    paths["safetensors"] = folder / "restoreformer.safetensors"
    save_file(
        {key: tensor.clone() for key, tensor in networks["restoreformer"].state_dict().items()},
        paths["safetensors"],
    )
    return paths


def face(count: int) -> tuple[Frames, FaceTrack]:
    """Smooth frames of 320x240 px, and a face of 160 px that moves."""
    noise = torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    pixels = (
        nn.functional.interpolate(noise, size=(240, 320), mode="bicubic")
        .clamp(0, 1)
        .permute(0, 2, 3, 1)
    )
    move = torch.arange(count, dtype=torch.float32)[:, None, None] * torch.tensor([3.0, 1.0])
    points = torch.tensor([FFHQ.points]) * 160 + torch.tensor([80.0, 40.0]) + move
    boxes = torch.cat([points.amin(1) - 20, points.amax(1) + 20], 1)
    return Frames((pixels * 255).to(torch.uint8)), FaceTrack(
        boxes, points, torch.ones(count, dtype=torch.bool)
    )


def tried(path: Path) -> dict[str, object]:
    frames, track = face(2)
    began = time.perf_counter()
    try:
        restorer = load_restorer(Restore(path), precision="float32")
    except WeightsError as error:
        return {"refused": str(error)}
    loaded = time.perf_counter()
    crops = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    both = restorer(crops)
    seconds = time.perf_counter() - loaded
    alone: Tensor = torch.cat([restorer(crops[:1]), restorer(crops[1:])])
    (after,) = restored([frames], [track], restorer=restorer)
    changed = (after.pixels != frames.pixels).any(-1)
    rows, columns = changed[0].nonzero().unbind(1)
    return {
        "name": restorer.name,
        "licence": restorer.licence,
        "load_seconds": round(loaded - began, 2),
        "seconds_for_two": round(seconds, 2),
        "again": float((restorer(crops) - both).abs().max()),
        "alone": float((alone - both).abs().max()),
        "spread": float(both.std()),
        "changed": [int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())]
        if len(rows)
        else [],
    }


def main() -> None:
    for name, path in saved(Path(sys.argv[1])).items():
        sys.stdout.write(json.dumps({"file": name, **tried(path)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
