"""``lipsync mask``: show what `lipsync dub` would redraw."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Blend, Cut, Finding
from .checks import check_inputs, check_side_output
from .options import Device, FaceFile, Model, Only, Overwrite, Which, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.generator import TalkingFace


@expand_options
def mask_command(  # noqa: PLR0913
    face: FaceFile,
    blend: Annotated[Blend, Only("mask", "feather", "feather_px", "strength", "occlusion")],
    cut: Annotated[Cut, Only("start", "end")],
    finding: Finding,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: a .png.")] = Path(
        "mask.png"
    ),
    which: Which = "largest",
    model: Model = "mini",
    frames: Annotated[int, typer.Option(min=1, max=100, help="Number of frames shown.")] = 9,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Show what would be redrawn: frames of the clip with the mask in green.

    A line is drawn where the mask's opacity is one half.
    """
    if out.suffix.lower() != ".png":
        raise typer.BadParameter(
            f"{out}: the picture must be a .png; change the name", param_hint="--out"
        )
    check_side_output(out, face, overwrite=overwrite)
    check_inputs(face, faces=(which,), weights=(model,), cut=cut, finding=finding)
    from ..models.weights import load_talking_face
    from ..runtime.prefetch import share_cores

    share_cores()
    sheet = _sheet(face, which, load_talking_face(model), blend, cut, finding, device, frames)
    _write(sheet, out)
    typer.echo(f"wrote {out}", err=True)


def _sheet(
    face: Path,
    which: str,
    network: "TalkingFace",
    blend: Blend,
    cut: Cut,
    finding: Finding,
    device: str,
    count: int,
) -> "Tensor":
    from ..faces.selection import select
    from ..faces.selector import parse_face
    from ..media.clip import open_clip
    from ..pipelines.dub_plan import plan_preview
    from ..pipelines.lipsync import LipSync
    from ..pipelines.preview import draw_mask_sheet
    from ..pipelines.track_faces import find_people, load_parser, select_device

    selector, target = parse_face(which), select_device(device)
    parser = load_parser(target) if blend.occlusion == "parse" else None
    footage = open_clip(face, cut)
    whole = footage.info.frames or 0
    with Bar() as say:
        people, length = find_people(
            footage,
            finding,
            target,
            stop=sys.maxsize,
            on_found=lambda done: say("find faces", done, max(done, whole)),
        )
    model = LipSync(network, blend=blend, precision="float32", parser=parser)
    return draw_mask_sheet(
        plan_preview(footage, [select(people, selector)], length, model), model, count=count
    )


def _write(sheet: "Tensor", out: Path) -> None:
    from PIL import Image

    from ..errors import MediaError
    from ..runtime.atomic import atomic_write

    try:
        with atomic_write(out) as part:
            Image.fromarray(sheet.numpy()).save(part)
    except OSError as error:
        raise MediaError(f"{out}: the picture cannot be written ({error.strerror})") from error
