"""Benchmark of the paper: methods dub pairs of face and speech, and scorers score the results."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import nn

from ..audio.features import mel_length
from ..audio.ops import frame_count
from ..errors import LipSyncError, WeightsError
from ..faces.selection import select
from ..faces.selector import FaceSelector
from ..faces.tracking import track_window
from ..media import AudioSource, VideoWriter, probe, read_audio, read_frames
from ..media.clip import VideoClip
from ..metrics.fid import Region, extract_features
from ..metrics.no_reference import BorderJitter, Sharpness
from ..metrics.sync_embedder import SyncNetScorer
from ..models.hub import file_sha256
from ..models.inception import Inception
from ..models.weights import load_model, load_talking_face, weights_file
from ..options import Cut, Encoding
from ..pipelines.dub import dub
from ..pipelines.mouth_following import MouthMeter
from ..pipelines.score import Mode, ScoreReport, load_scorer, score
from ..pipelines.track_faces import (
    Finding,
    load_detector,
    load_landmarks,
    select_device,
    track_faces,
)
from ..runtime.jobs import Job, Outcome
from ..runtime.paths import same_file
from ..types import FaceTrack, Frames, VideoInfo
from .baselines import copy_mouth
from .lips import LipJudge, Original
from .pairs import Pair

BASELINES = ("real", "undubbed", "copied mouth")
Network = TypeVar("Network", bound=nn.Module)

_SCRIPT_FPS = Fraction(25)
_SCRIPT_COLUMNS = 16  # of the mel spectrogram in one window
_CHUNK = 16  # frames read at once


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Settings of a benchmark.

    ``mode`` reference dubs as the paper's scripts do: 25 fps, no pads, no last frame for which the
    audio ends inside its window, and a pair fails whose video is shorter than its speech or has a
    frame without a face. Otherwise ``dub`` runs with its defaults, and ends with the shorter of
    picture and audio.

    Attributes:
        root: Folder of the files that pairs name.
        out: Folder for videos and figures.
        models: Names or weight files.
        scorer: See ``score``.
        mode: See ``score``.
        whole_frame: Score whole frames as the paper does for LRS2, LRS3 and LRW; in mode reference
            only.
        region: Region that FID compares.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch: Frames generated at once.
        finding: Detector and tracking.
    """

    root: Path
    out: Path
    models: tuple[str, ...] = ("mini",)
    scorer: str = "judge"
    mode: Mode = "exact"
    whole_frame: bool = False
    region: Region = "face"
    device: str = "auto"
    batch: int = 8
    finding: Finding = Finding()

    def __post_init__(self) -> None:
        if self.whole_frame and self.mode != "reference":
            raise ValueError(
                "whole frames are scored by the paper's scripts; expected mode reference with them"
            )
        names = [*BASELINES, *(Path(model).stem for model in self.models)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"methods {', '.join(names)}; expected models of different names, none named like "
                "a baseline"
            )

    @property
    def methods(self) -> dict[str, str]:
        """Return the models by the names under which tables show them."""
        return {Path(model).stem: model for model in self.models}

    def jobs(self, pairs: Sequence[Pair]) -> list[Job]:
        """List one job for each pair and method, pair by pair.

        The arguments of a job hold everything its result depends on, weights by their hash; its
        inputs are the two files of the pair.

        Args:
            pairs: The pairs.

        Returns:
            The jobs.

        Raises:
            WeightsError: If weights are missing.
        """
        weights = {name: file_sha256(weights_file(model)) for name, model in self.methods.items()}
        common = {
            "root": str(self.root),
            "scorer": self.scorer,
            "scorer_sha256": file_sha256(weights_file(self.scorer)),
            "mode": self.mode,
            "whole_frame": self.whole_frame,
            "finding": f"{self.finding.detector} {self.finding.min_score}",
            "fid": None if explain_missing_fid() else self.region,
            "landmarks_sha256": file_sha256(weights_file("face_landmarks")),
        }
        return [
            Job(
                f"{number:05} {method}",
                {
                    "pair": number,
                    "audio": pair.audio,
                    "video": pair.video,
                    "method": method,
                    "sha256": weights.get(method),
                    **common,
                },
                (str(self.root / pair.audio), str(self.root / pair.video)),
            )
            for number, pair in enumerate(pairs)
            for method in (*BASELINES, *weights)
        ]

    def prepare(self) -> "Bench":
        """Load the models and return the callable that runs the jobs.

        Returns:
            The callable.

        Raises:
            LipSyncError: If the root folder, the models or the scorer cannot be used.
            ValueError: If a setting is wrong.
        """
        return Bench(self)

    def holds(self, outcome: Outcome) -> bool:
        """Return whether the files that a job's result names still exist."""
        result = outcome.result or {}
        return all(
            (self.out / name).is_file()
            for name in (result.get("out"), result.get("fid_features"))
            if name
        )


def explain_missing_fid() -> str | None:
    """Return why there is no FID (its network is missing); None if there is one."""
    try:
        weights_file("fid-inception")
    except WeightsError:
        return "its network is not on this machine; lipsync models pull fid-inception"
    return None


class Bench:
    """Runs the jobs of a ``Benchmark``: dubs, scores and measures."""

    def __init__(self, plan: Benchmark) -> None:
        self.plan = plan
        self.device = select_device(plan.device)
        if not plan.root.is_dir():
            raise LipSyncError(
                f"{plan.root} is not a folder; expected the one below which the videos lie"
            )
        self.scorer = load_scorer(plan.scorer, self.device)
        if not isinstance(self.scorer, SyncNetScorer) and plan.mode == "reference":
            raise ValueError(
                "mode reference is SyncNet's own protocol; expected the scorer syncnet, not "
                f"{plan.scorer}"
            )
        self.networks = {
            name: load_talking_face(model, device=self.device)
            for name, model in plan.methods.items()
        }
        self.inception = (
            None
            if explain_missing_fid()
            else self._loaded("fid-inception", "fid_inception", Inception)
        )
        self.detector, self.key = load_detector(plan.finding, self.device)
        self.lips = LipJudge(MouthMeter(load_landmarks(self.device), self.detector, self.key))

    def _loaded(self, name: str, kind: str, wanted: type[Network]) -> Network:
        network = load_model(name, kind=kind, device=self.device)
        assert isinstance(network, wanted)
        return network

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run one job.

        A job that fails leaves no files, not even those of an earlier run.

        Args:
            arguments: Arguments of the job.

        Returns:
            The video's path below ``out``, its number of frames and of those without the face, the
            score of its longest face track, sharpness and border jitter, whose lips it follows
            ("mouth"; see ``LipJudge``; with the undubbed video also "mouth_references"), and the
            file of its FID features or null.
        """
        name = f"{arguments['method']}/{arguments['pair']:05}"
        out, features = (
            self.plan.out / f"videos/{name}.mp4",
            self.plan.out / f"features/{name}.safetensors",
        )
        out.unlink(missing_ok=True)
        features.unlink(missing_ok=True)
        try:
            return self._result(arguments, out, features)
        except BaseException:
            out.unlink(missing_ok=True)
            features.unlink(missing_ok=True)
            raise

    def _result(self, arguments: Mapping[str, Any], out: Path, features: Path) -> dict[str, Any]:
        scene = self._scene(
            self.plan.root / arguments["video"], self.plan.root / arguments["audio"]
        )
        method = arguments["method"]
        out.parent.mkdir(parents=True, exist_ok=True)
        self._make(method, scene, out)
        real = method == "real"
        # the truth is what the file shows, not our encoding of it
        seen = scene.video if real else out
        # these files are not searched for faces again
        finding = replace(self.plan.finding, cache=False)
        # the scripts score the real files themselves; else they are encoded and cut like the others
        scored = scene.video if real and self.plan.mode == "reference" else out
        report = score(
            scored,
            scorer=self.scorer,
            mode=self.plan.mode,
            whole_frame=self.plan.whole_frame,
            finding=finding,
            device=self.plan.device,
        )
        return {
            "out": out.relative_to(self.plan.out).as_posix(),
            "frames": scene.count,
            "without_face": scene.count - int(scene.person.visible.sum()),
            **_scored(report),
            **_looks(scene.frames(seen), scene.person),
            **self._lips(method, scene, seen),
            "fid_features": self._features(scene, seen, features),
        }

    def _lips(self, method: str, scene: "_Scene", seen: Path) -> dict[str, Any]:
        """Measure whose lips ``seen`` shows.

        One method of each pair also gets the reference mouths, which have no video.
        """
        sound = scene.video if method == "real" else scene.audio
        original = Original(
            scene.video, sound, scene.person, scene.info.fps, lambda: scene.frames(scene.video)
        )
        mouth = {"mouth": self.lips.compare(scene.frames(seen), original)}
        return (
            {**mouth, "mouth_references": self.lips.references(original)}
            if method == "undubbed"
            else mouth
        )

    def _scene(self, video: Path, audio: Path) -> "_Scene":
        info = probe(video)
        scripts = self.plan.mode == "reference"
        footage = VideoClip(video, replace(info, fps=_SCRIPT_FPS) if scripts else info)
        sound = read_audio(audio, keep_early=not same_file(audio, video))
        wanted = (
            frames_of_scripts(sound.samples.shape[1]) if scripts else frame_count(sound, info.fps)
        )
        if wanted < 1:
            raise LipSyncError(
                f"{audio}: {sound.samples.shape[1]} samples at {sound.rate} Hz are too few for a "
                "frame"
            )
        people, count = track_faces(footage, self.detector, stop=wanted, detector_key=self.key)
        person = track_window(select(people, FaceSelector()), 0, count)
        away = count - int(person.visible.sum())
        if scripts and count < wanted:
            raise LipSyncError(f"{video} has {count} frames; the speech wants {wanted}")
        if scripts and away:
            raise LipSyncError(f"{video} shows no face in {away} of {count} frames")
        return _Scene(video, footage.info, audio, count, person)

    def _make(self, method: str, scene: "_Scene", out: Path) -> None:
        """Write the video of a method."""
        encoding, fps = Encoding(overwrite=True, repeatable=True), scene.info.fps
        if method in BASELINES:
            copied = method == "copied mouth"
            pieces = (
                copy_mouth(scene.video, fps, scene.person, scene.count)
                if copied
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
            return
        network = self.networks[method]
        boxed = self.plan.mode == "reference" and network.config.framing.kind == "box"
        dub(
            scene.video,
            scene.audio,
            out,
            model=network,
            model_name=method,
            cut=Cut(end=scene.count / fps, fps=fps, longer="trim"),
            finding=self.plan.finding,
            encoding=encoding,
            pads=(0, 0, 0, 0) if boxed else None,
            device=self.plan.device,
            batch=self.plan.batch,
        )

    def _features(self, scene: "_Scene", video: Path, out: Path) -> str | None:
        """Write the FID features of ``video`` to ``out`` if their network is available."""
        if self.inception is None:
            return None
        track = scene.person if self.plan.region == "face" else None
        found = extract_features(self.inception, scene.frames(video), track=track)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": found}, out)
        return out.relative_to(self.plan.out).as_posix()


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
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
        """Read the same frames of another file."""
        return read_frames(video, chunk=_CHUNK, fps=self.info.fps, stop=self.count)


def _looks(frames: Iterable[Frames], person: FaceTrack) -> dict[str, float | None]:
    sharpness, jitter = Sharpness(), BorderJitter()
    for piece in frames:
        sharpness.update(piece, person)
        jitter.update(piece, person)
    return {"sharpness": sharpness.compute(), "border_jitter": jitter.compute()}


def frames_of_scripts(samples: int) -> int:
    """Count the frames that the paper's evaluation scripts make.

    They make frame i at 25 fps as long as 16 mel columns from floor(16 i / 5) on exist, and no last
    frame beyond.

    Args:
        samples: Length of the audio at 16 kHz.

    Returns:
        The number of frames.
    """
    return max(0, -(-5 * (mel_length(samples) - _SCRIPT_COLUMNS + 1) // 16))


def _scored(report: ScoreReport) -> dict[str, Any]:
    """Return the score of the longest track, the first of equals, and the number of tracks."""
    best = max(report.tracks, key=lambda track: track.last_frame - track.first_frame)
    found = best.score
    if not math.isfinite(found.distance):
        raise LipSyncError(f"no score: {found.reason}")
    return {
        "tracks": len(report.tracks),
        "offset_frames": found.offset_frames,
        "distance": found.distance,
        "confidence": found.confidence,
        "search_frames": found.search_frames,
        "uncertainty": found.uncertainty,
        "reason": found.reason,
        "warnings": list(report.warnings),
    }
