"""``lipsync dub``: its options, and the call of ``dub`` that they stand for."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ..errors import LipSyncError
from ..options import (
    Blend,
    Cut,
    Encoding,
    Finding,
    MaskKind,
    Precision,
    Reference,
    Restore,
    Silence,
)
from ..pipelines.turn_subtitles import parse_who, read_any_turns
from .checks import check_inputs, check_video_output
from .options import AsJson, Device, FaceFile, Model, Which, expand_options
from .progress import Bar

if TYPE_CHECKING:
    from ..models.generator import TalkingFace
    from ..pipelines.dub import DubReport
    from ..pipelines.score import ScoreReport
    from ..types import ProgressCallback

UNCONVINCING = 6
"""Exit code of a dub that was written, and is as bad as ``--fail-on`` says."""

FailOn = Annotated[
    Literal["doubtful", "failed"] | None,
    typer.Option(
        rich_help_panel="Advanced",
        help="Exit with code 6 if a mouth did not move (failed), or if it is not clear that it "
        "followed the speech (doubtful). The video is written.",
    ),
]
Offset = Annotated[
    bool,
    typer.Option(
        "--offset",
        rich_help_panel="Advanced",
        help="Let the judge measure the offset afterwards (slow).",
    ),
]
_RESTORE = re.compile(r"(.+?)(?::([\d.]+))?(?::(mouth|lower|face|box))?")  # NAME:STRENGTH:MASK


def parse_pair(text: str) -> tuple[Path, str]:
    """Split FACE=AUDIO into (audio, face)."""
    face, equals, audio = text.partition("=")
    if not equals or not audio:
        raise typer.BadParameter(
            f"{text!r} is not a pair; expected FACE=AUDIO, such as left=anna.wav"
        )
    return Path(audio), face


def parse_pads(text: str) -> tuple[int, int, int, int]:
    """Parse 'top bottom left right', in px."""
    try:
        top, bottom, left, right = (int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} are not pads; expected 'top bottom left right' in px, such as '0 10 0 0'"
        ) from None
    return top, bottom, left, right


def parse_restore(restore: Restore) -> Restore:
    """Split a network written as NAME[:STRENGTH[:MASK]] into the fields of ``Restore``."""
    match = _RESTORE.fullmatch(str(restore.network))
    if match is None:
        return restore
    name, strength, mask = match.groups()
    try:
        return Restore(
            name, float(strength or restore.strength), cast(MaskKind, mask or restore.mask)
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--restore") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class DubOptions:
    """All options of `lipsync dub`; those without a typer annotation carry theirs in their fields.

    The columns of `lipsync batch` have the names of the command line's parameters, which are the
    names of the fields unless an ``Option`` gives another.
    """

    face: FaceFile
    audio: Annotated[Path | None, typer.Argument(help="Speech: any file with sound.")] = None
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The dubbed video: .mp4, .mov, .mkv or .webm.")
    ] = Path("dubbed.mp4")
    which: Which = "largest"
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACE=AUDIO",
            help="A face and its speech, once per speaker; instead of AUDIO and --face.",
        ),
    ] = None
    speakers: Annotated[
        str | None,
        typer.Option(
            metavar="auto|FILE",
            help="Who speaks AUDIO, and when: auto, a table (see `lipsync speakers`), subtitles "
            "with names, or RTTM.",
        ),
    ] = None
    who: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FACE",
            rich_help_panel="Faces",
            help="The face of a name in such subtitles, once per name; none: off screen.",
        ),
    ] = None
    model: Model = "mini"
    blend: Blend = field(default_factory=Blend)
    texture: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel="Blending",
            help="How much of the frame's sharpness and grain a generated mouth gets.",
        ),
    ] = 1.0
    restore: Restore | None = None
    silence: Annotated[
        Silence,
        typer.Option(
            help="The mouth in pauses: the old one, a closed one, or what the model generates."
        ),
    ] = "generate"
    reference: Annotated[
        Reference,
        typer.Option(
            rich_help_panel="Blending",
            help="The picture that a mouth is generated from; auto: what suits the model best.",
        ),
    ] = "auto"
    cut: Cut = field(default_factory=Cut)
    finding: Finding = field(default_factory=Finding)
    pads: Annotated[
        str | None,
        typer.Option(
            metavar="'TOP BOTTOM LEFT RIGHT'",
            rich_help_panel="Faces",
            help="Pixels added to the detected box, for wav2lip weights.",
        ),
    ] = None
    device: Device = "auto"
    precision: Annotated[
        Precision,
        typer.Option(
            rich_help_panel="Advanced",
            help="Arithmetic of the networks; auto: bfloat16 if the CPU has units for it.",
        ),
    ] = "auto"
    batch: Annotated[
        int, typer.Option(min=1, rich_help_panel="Advanced", help="Frames generated at once.")
    ] = 8
    lead_ms: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Advanced",
            help="Take speech this many milliseconds before its frame; 40 corrects the early lips "
            "of wav2lip.",
        ),
    ] = None
    encoding: Encoding = field(default_factory=Encoding)

    def dub_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of ``dub``.

        Raises:
            typer.BadParameter: If options contradict each other.
            ValueError: If a value is out of range.
        """
        if (self.audio is None) == (not self.pair):
            raise typer.BadParameter("give either AUDIO or --pair FACE=AUDIO", param_hint="AUDIO")
        if self.speakers is not None and self.pair:
            raise typer.BadParameter("give either --speakers or --pair", param_hint="--speakers")
        pairs = [parse_pair(text) for text in self.pair or []]
        detail, grain = self.blend.detail * self.texture, self.blend.grain * self.texture
        return {
            "face": self.face,
            "audio": pairs if self.audio is None else self.audio,
            "out": self.out,
            "model": self.model,
            "model_name": Path(self.model).name,
            "select": self.which,
            "blend": replace(self.blend, detail=detail, grain=grain),
            "restore": None if self.restore is None else parse_restore(self.restore),
            "cut": self.cut,
            "finding": self.finding,
            "encoding": self.encoding,
            "silence": self.silence,
            "reference": self.reference,
            "speakers": self.speakers,
            "who": self.who_speaks() or None,
            "pads": None if self.pads is None else parse_pads(self.pads),
            "lead_ms": self.lead_ms,
            "device": self.device,
            "precision": self.precision,
            "batch": self.batch,
        }

    def who_speaks(self) -> dict[str, str]:
        """Return the face of each name in subtitles.

        Raises:
            typer.BadParameter: If a text is no NAME=FACE, or no file has names.
        """
        try:
            return parse_who(self.who or [])
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--who") from None

    def input_files(self) -> list[Path]:
        """List the files that the dub reads, besides bundled and pulled weights."""
        pairs = [parse_pair(text)[0] for text in self.pair or []]
        restorer = None if self.restore is None else parse_restore(self.restore).network
        others = [self.audio, self.speakers, self.model, restorer, self.finding.landmarks]
        files = [self.face, *pairs, *(Path(other) for other in others if other is not None)]
        # a word such as auto or mini is a file only if it is there
        given = (self.face, self.audio, *pairs)
        return [file for file in files if file in given or file.is_file()]

    def check(self) -> None:
        """Check values and paths without loading torch.

        Raises:
            typer.BadParameter: If options contradict each other.
            LipSyncError: If a file is missing, or the output may not be written.
            ValueError: If a value is out of range.
        """
        self.dub_arguments()
        pairs = [parse_pair(text) for text in self.pair or []]
        sounds = [path for path, _ in pairs] if self.audio is None else [self.audio]
        weights = (self.model,)
        if self.restore is not None:
            weights += (parse_restore(self.restore).network,)
        check_video_output(self.out, self.face, *sounds, overwrite=self.encoding.overwrite)
        check_inputs(
            self.face,
            *sounds,
            faces=(self.which, *(face for _, face in pairs)),
            weights=weights,
            cut=self.cut,
            finding=self.finding,
        )
        if self.speakers not in (None, "auto"):
            read_any_turns(Path(self.speakers), self.who_speaks())
        from ..media.encoders import check_encoder

        encoding = self.encoding
        check_encoder(self.out.suffix.lower(), encoding.codec, encoding.crf, encoding.preset)


@expand_options
def dub_command(
    options: DubOptions, fail_on: FailOn = None, offset: Offset = False, as_json: AsJson = False
) -> None:
    """Make the face of a video or photo speak."""
    options.check()
    from ..runtime.prefetch import share_cores

    share_cores()
    with Bar() as bar:
        report = run_dub(options, on_progress=bar)
        score = _score(report.out, options.device, bar) if offset else None
    _print_report(report, score, as_json)
    if fail_on is not None and report.is_as_bad_as(fail_on):
        raise typer.Exit(UNCONVINCING)


def _score(out: Path, device: str, on_progress: "ProgressCallback") -> "ScoreReport | None":
    """Let the bundled judge measure the offset of the dub; None, and why, where it cannot."""
    from ..pipelines.score import score

    try:
        return score(out, device=device, on_progress=on_progress)
    except LipSyncError as error:
        typer.echo(f"warning: no offset: {error}", err=True)
        return None


def run_dub(
    options: DubOptions,
    *,
    model: "TalkingFace | None" = None,
    on_progress: "ProgressCallback | None" = None,
) -> "DubReport":
    """Dub with the options of `lipsync dub`.

    Args:
        options: The parsed options.
        model: The network that they name, if it is already loaded.
        on_progress: Called with (stage, done, total).

    Returns:
        The report of the dub.
    """
    from ..pipelines.dub import dub

    arguments = options.dub_arguments()
    if model is not None:
        arguments["model"] = model
    return dub(**arguments, on_progress=on_progress)


def _print_report(report: "DubReport", score: "ScoreReport | None", as_json: bool) -> None:
    if as_json:
        values = json.loads(report.to_json())
        scored = {} if score is None else {"score": json.loads(score.to_json())}
        print(json.dumps(values | scored))
        return
    from rich.console import Console
    from rich.table import Table

    from ..pipelines.score import explain_score

    table = Table(title=str(report.out), show_header=False)
    table.add_row("frames", f"{report.frames} at {float(report.fps):g} fps")
    table.add_row("dubbed", f"{report.dubbed}; {report.passed_through} passed through")
    for reason, count in report.passed_reasons.items():
        table.add_row("passed through", f"{count}: {reason}")
    for mouth in report.mouths:
        table.add_row("mouth", f"{mouth.verdict}: {mouth.reason}")
    if score is not None:
        for face in score.tracks:
            table.add_row("offset", explain_score(face.score, score.fps))
    for track in report.audio_tracks:
        table.add_row("sound", track)
    table.add_row("model", f"{report.model}, faces by {report.detector}")
    table.add_row("pixels moved by", report.warped_by)
    if report.restorer is not None:
        table.add_row("restored by", report.restorer)
    table.add_row(
        "seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in report.seconds.items())
    )
    for warning in report.warnings:
        table.add_row("warning", warning)
    Console().print(table)
