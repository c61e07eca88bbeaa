"""Check arguments of commands before torch is loaded, so that a typo is answered at once."""

from pathlib import Path

import typer

from ..errors import LipSyncError
from ..faces.selector import parse_face
from ..media.paths import check_input_path, check_output_path, refuse_inputs
from ..models.weight_files import check_weights
from ..options import Cut, Finding


def check_inputs(
    *files: Path | None,
    faces: tuple[str, ...] = (),
    weights: tuple[Path | str, ...] = (),
    cut: Cut | None = None,
    finding: Finding | None = None,
) -> None:
    """Check what a command is given to read.

    Args:
        files: Media files; None for those left out.
        faces: Face selectors.
        weights: Names or files of weights.
        cut: The part of the first file that is read.
        finding: How faces are found.

    Raises:
        MediaError: If a media file is missing, empty or a folder.
        WeightsError: If weights are missing.
        ValueError: If a selector or the cut is invalid.
    """
    for face in faces:
        parse_face(face)
    if cut is not None and cut.end is not None and cut.end <= cut.start:
        raise ValueError(
            f"the cut from {float(cut.start):g} to {float(cut.end):g} s holds no frame; "
            "end it later"
        )
    for file in files:
        if file is not None:
            check_input_path(file)
    for name in weights:
        check_weights(name)
    if finding is not None and finding.detector != "mini":
        check_weights(finding.detector)


def check_folder(folder: Path) -> None:
    """Check that ``folder`` is a folder.

    Raises:
        LipSyncError: If it is not.
    """
    if not folder.is_dir():
        raise LipSyncError(f"{folder} is not a folder; expected one with videos")


def check_video_output(out: Path, *inputs: Path | None, overwrite: bool) -> None:
    """Check that a video may be written.

    Args:
        out: File to write.
        inputs: What is read, which is never overwritten.
        overwrite: Whether an existing file is replaced.

    Raises:
        MediaError: If not.
    """
    refuse_inputs(out, *(path for path in inputs if path is not None))
    check_output_path(out, overwrite=overwrite)


def check_side_output(out: Path, *inputs: Path | None, overwrite: bool) -> None:
    """Check that a picture or table may be written, by the option ``--out``.

    Args:
        out: File to write.
        inputs: What is read, which is never overwritten.
        overwrite: Whether an existing file is replaced.

    Raises:
        typer.BadParameter: If it exists, or its folder does not.
        MediaError: If it is one of the inputs.
    """
    refuse_inputs(out, *(path for path in inputs if path is not None))
    if out.is_dir() or (out.exists() and not overwrite):
        raise typer.BadParameter(
            f"{out} exists; choose another name, or --overwrite", param_hint="--out"
        )
    if not out.parent.is_dir():
        raise typer.BadParameter(
            f"{out.parent} is not a folder; create it, or choose another", param_hint="--out"
        )
