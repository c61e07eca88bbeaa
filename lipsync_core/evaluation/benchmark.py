"""Benchmark of the paper: methods dub pairs of face and speech, and scorers score the results."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import Tensor, nn

from ..audio.features import mel_length
from ..audio.ops import frame_count
from ..errors import LipSyncError, WeightsError
from ..faces.selection import select
from ..faces.selector import FaceSelector
from ..faces.tracking import track_window
from ..media import probe, read_audio
from ..media.clip import VideoClip
from ..metrics.fid import Region, extract_features
from ..metrics.success import RULES_VERSION
from ..metrics.sync_embedder import SyncNetScorer
from ..models.hub import file_sha256
from ..models.inception import Inception
from ..models.weights import load_model, load_talking_face, weights_file
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
from .lips import LipJudge, Original
from .making import BASELINES, Maker, Scene
from .measures import VERSION, describe_protocol, measure_picture, measure_silence
from .page import find_box
from .pairs import Pair
from .peers import find_output

Network = TypeVar("Network", bound=nn.Module)

_SCRIPT_FPS = Fraction(25)
_SCRIPT_COLUMNS = 16  # of the mel spectrogram in one window


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
        silence: Also dub every face with silence, which shows old lips that leak.
        outputs: Names and folders of dubs that other tools made (``peers.find_output``).
        commands: Names and words of commands that make one dub each (``peers.run_command``).
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
    silence: bool = False
    outputs: tuple[tuple[str, Path], ...] = ()
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        if self.whole_frame and self.mode != "reference":
            raise ValueError(
                "whole frames are scored by the paper's scripts; expected mode reference with them"
            )
        names = [
            *BASELINES,
            *(Path(model).stem for model in self.models),
            *(name for name, _ in (*self.outputs, *self.commands)),
        ]
        if len(set(names)) < len(names):
            raise ValueError(
                f"methods {', '.join(names)}; expected models of different names, none named like "
                "a baseline"
            )
        bad = [name for name in names if re.search(r'[<>:"/\\|?*\x00-\x1f]', name)]
        if bad:
            raise ValueError(f"{bad[0]!r} is a method's name; expected one that can name a folder")

    @property
    def methods(self) -> dict[str, str]:
        """Return the models by the names under which tables show them."""
        return {Path(model).stem: model for model in self.models}

    @property
    def names(self) -> tuple[str, ...]:
        """Return all methods in the order of the tables: baselines, models, other tools."""
        others = [name for name, _ in (*self.outputs, *self.commands)]
        return (*BASELINES, *self.methods, *others)

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
            "measures": [VERSION, RULES_VERSION],
            "silence": self.silence,
        }
        folders, commands = dict(self.outputs), dict(self.commands)
        found: list[Job] = []
        for number, pair in enumerate(pairs):
            for method in self.names:
                arguments: dict[str, Any] = {
                    "pair": number,
                    "audio": pair.audio,
                    "video": pair.video,
                    "method": method,
                    "sha256": weights.get(method),
                    **common,
                }
                inputs = [str(self.root / pair.audio), str(self.root / pair.video)]
                if method in commands:
                    arguments["command"] = list(commands[method])
                if method in folders:
                    made = find_output(folders[method], number, pair)
                    arguments["output"] = None if made is None else str(made)
                    inputs += [] if made is None else [str(made)]
                found.append(Job(f"{number:05} {method}", arguments, tuple(inputs)))
        return found

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
        self.meter = MouthMeter(load_landmarks(self.device), self.detector, self.key)
        self.lips = LipJudge(self.meter)
        self.maker = Maker(
            self.networks,
            dict(plan.outputs),
            dict(plan.commands),
            boxed=plan.mode == "reference",
            finding=plan.finding,
            device=plan.device,
            batch=plan.batch,
        )

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
            score of its longest face track, the figures of its picture and of the shapes of its
            lips, whose lips it follows ("mouth"; see ``LipJudge``; with the undubbed video also
            "mouth_references"), those of a dub with silence or null, the file of its FID features
            or null, and "measured": what the figures depend on (``describe_protocol``).
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
        number, method = arguments["pair"], arguments["method"]
        pair = Pair(arguments["audio"], arguments["video"])
        scene = self._scene(self.plan.root / pair.video, self.plan.root / pair.audio)
        out.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self.maker.make(method, scene, out, number=number, pair=pair)
        seconds = time.perf_counter() - started
        real = method == "real"
        # the truth is what the file shows, not our encoding of it
        seen = scene.video if real else out
        # the scripts score the real files themselves; else they are encoded and cut like the others
        scored = scene.video if real and self.plan.mode == "reference" else out
        found = _scored(self._score(scored))
        sound = scene.video if real else scene.audio
        original = Original(
            scene.video, sound, scene.person, scene.info.fps, lambda: scene.frames(scene.video)
        )
        old = self.lips.source_points(original)
        points, picture = measure_picture(
            scene.frames(scene.video), scene.frames(seen), scene.person, old, self.meter
        )
        finding = f"{self.plan.finding.detector} {self.plan.finding.min_score}"
        return {
            "out": out.relative_to(self.plan.out).as_posix(),
            "frames": scene.count,
            "missing_seconds": float((scene.count - len(points)) / scene.info.fps),
            "box": find_box(
                scene.person.boxes[scene.person.visible], scene.info.width, scene.info.height
            ),
            "without_face": scene.count - int(scene.person.visible.sum()),
            "made_in_seconds": None if method in BASELINES else round(seconds, 2),
            **found,
            **picture,
            **self.lips.shapes(points, original),
            **self._mouths(method, points, original),
            "silence": self._silence(method, scene, out, old),
            "fid_features": self._features(scene, seen, features),
            "measured": describe_protocol(
                scored, self.scorer, mode=self.plan.mode, detector=finding
            ),
        }

    def _score(self, video: Path, audio: Path | None = None) -> ScoreReport:
        # these files are not searched for faces again
        finding = replace(self.plan.finding, cache=False)
        return score(
            video,
            audio,
            scorer=self.scorer,
            mode=self.plan.mode,
            whole_frame=self.plan.whole_frame,
            finding=finding,
            device=self.plan.device,
        )

    def _mouths(self, method: str, points: Tensor, original: Original) -> dict[str, Any]:
        """Measure whose lips a dub shows.

        One method of each pair also gets the reference mouths, which have no video.
        """
        mouth = {"mouth": self.lips.compare(points, original)}
        if method != "undubbed":
            return mouth
        return {**mouth, "mouth_references": self.lips.references(original)}

    def _silence(
        self, method: str, scene: Scene, out: Path, old: Tensor
    ) -> dict[str, float | None] | None:
        """Measure a dub with silence, or the source's own mouth as that of the undubbed video.

        The scores are those against the source's own sound.
        """
        if not self.plan.silence:
            return None
        if method == "undubbed":
            return measure_silence(old)
        if not self.maker.can_speak_anything(method):
            return None
        made = out.with_name(f"{out.stem}.silence.mp4")
        made.unlink(missing_ok=True)
        self.maker.make(method, scene, made, silent=True)
        points = self.meter.along(scene.frames(made), scene.person)
        found = _scored(self._score(made, scene.video))
        return {
            **measure_silence(points),
            "confidence": found["confidence"],
            "distance": found["distance"],
        }

    def _scene(self, video: Path, audio: Path) -> Scene:
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
        return Scene(video, footage.info, audio, count, person)

    def _features(self, scene: Scene, video: Path, out: Path) -> str | None:
        """Write the FID features of ``video`` to ``out`` if their network is available."""
        if self.inception is None:
            return None
        track = scene.person if self.plan.region == "face" else None
        found = extract_features(self.inception, scene.frames(video), track=track)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": found}, out)
        return out.relative_to(self.plan.out).as_posix()


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
