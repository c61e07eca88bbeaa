"""Make the videos that the benchmark compares: baselines, dubs of models and of other tools."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from ..errors import LipSyncError
from ..media import AudioSource, VideoWriter, probe, read_audio, read_frames
from ..models.generator import TalkingFace
from ..options import Cut, Encoding
from ..pipelines.dub import dub
from ..pipelines.track_faces import Finding
from ..runtime.paths import same_file
from ..types import Audio, FaceTrack, Frames, VideoInfo
from .baselines import copy_mouth, freeze_mouth
from .pairs import Pair
from .peers import run_command, take_output

BASELINES = ("real", "undubbed", "copied mouth", "frozen mouth")

_CHUNK = 16  # frames read at once
_MOST_PADDING = 16  # px: encoders of other tools pad to whole blocks
_RATE = 16000  # of silence


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Pair whose video was read and whose face was found.

    The first ``count`` frames of ``video`` at the rate of ``info`` are dubbed with ``audio``; they
    show ``person``.
    """

    video: Path
    info: VideoInfo
    audio: Path
    count: int
    person: FaceTrack

    def frames(self, video: Path) -> Iterator[Frames]:
        """Read the same frames of another file, without what it is padded by.

        Raises:
            LipSyncError: If its picture has another size.
        """
        info = probe(video)
        width, height = self.info.width, self.info.height
        more = info.width - width, info.height - height
        if min(more) < 0 or max(more) > _MOST_PADDING:
            raise LipSyncError(
                f"{video.name} has {info.width}x{info.height} px; expected {width}x{height}, as "
                "the face's video has: dubs of another size cannot be compared"
            )
        for piece in read_frames(video, chunk=_CHUNK, fps=self.info.fps, stop=self.count):
            yield Frames(piece.pixels[:, :height, :width], piece.start)


class Maker:
    """Makes the video of any method.

    Args:
        networks: Loaded models by the names of their methods.
        folders: Folders of other tools' dubs, likewise.
        commands: Words of commands, likewise.
        boxed: Dub box-framed models without pads, as the paper's scripts do.
        finding: Detector and tracking.
        device: Device of the models.
        batch: Frames generated at once.
    """

    def __init__(
        self,
        networks: Mapping[str, TalkingFace],
        folders: Mapping[str, Path],
        commands: Mapping[str, Sequence[str]],
        *,
        boxed: bool = False,
        finding: Finding = Finding(),
        device: str = "auto",
        batch: int = 8,
    ) -> None:
        self._networks, self._folders, self._commands = networks, folders, commands
        self._boxed, self._finding, self._device, self._batch = boxed, finding, device, batch

    def can_speak_anything(self, method: str) -> bool:
        """Return whether a method can dub another sound than that of the pair."""
        return method in self._networks or method in self._commands

    def make(
        self,
        method: str,
        scene: Scene,
        out: Path,
        *,
        number: int = 0,
        pair: Pair | None = None,
        silent: bool = False,
    ) -> None:
        """Write the video of a method.

        Args:
            method: Its name.
            scene: Face and sound.
            out: The file.
            number: Number of the pair.
            pair: The pair; for dubs in a folder.
            silent: Dub with silence instead of the sound.

        Raises:
            LipSyncError: If another tool gave no dub.
        """
        if method in BASELINES:
            self._make_baseline(method, scene, out)
        elif method in self._folders:
            assert pair is not None
            take_output(self._folders[method], number, pair, out)
        elif method in self._commands:
            speech = _silence(scene) if silent else read_speech(scene)
            run_command(self._commands[method], scene.video, speech, out)
        else:
            self._dub(method, scene, out, silent=silent)

    def _make_baseline(self, method: str, scene: Scene, out: Path) -> None:
        fps, encoding = scene.info.fps, _encoding()
        kinds = {"copied mouth": copy_mouth, "frozen mouth": freeze_mouth}
        pieces = (
            kinds[method](scene.video, fps, scene.person, scene.count)
            if method in kinds
            else scene.frames(scene.video)
        )
        spoken = scene.video if method == "real" else scene.audio
        sound = AudioSource(spoken, keep_early=not same_file(spoken, scene.video))
        with VideoWriter(
            out,
            scene.info,
            sound,
            crf=encoding.crf,
            preset=encoding.preset,
            repeatable=True,
            overwrite=True,
        ) as writer:
            for piece in pieces:
                writer.write(piece)

    def _dub(self, method: str, scene: Scene, out: Path, *, silent: bool) -> None:
        network, fps = self._networks[method], scene.info.fps
        boxed = self._boxed and network.config.framing.kind == "box"
        dub(
            scene.video,
            _silence(scene) if silent else scene.audio,
            out,
            model=network,
            model_name=method,
            cut=Cut(end=scene.count / fps, fps=fps, longer="trim"),
            finding=self._finding,
            encoding=_encoding(),
            pads=(0, 0, 0, 0) if boxed else None,
            device=self._device,
            batch=self._batch,
        )


def _encoding() -> Encoding:
    return Encoding(overwrite=True, repeatable=True)


def read_speech(scene: Scene) -> Audio:
    """Read the sound of a scene's frames."""
    sound = read_audio(scene.audio, keep_early=not same_file(scene.audio, scene.video))
    length = int(Fraction(scene.count) / scene.info.fps * sound.rate)
    return Audio(sound.samples[:, :length], sound.rate)


def _silence(scene: Scene) -> Audio:
    return Audio(torch.zeros(1, int(Fraction(scene.count) / scene.info.fps * _RATE)), _RATE)
