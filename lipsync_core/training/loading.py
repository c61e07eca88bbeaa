"""Batches drawn at random, the same for a seed however often the run stops and however many
processes share it."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..audio.features import MelFeatures
from ..errors import NoClipsError, TrainingError
from ..models.generator import SoundFeatures
from ..models.sync_expert import SyncExpertConfig
from ..runtime.prefetch import prefetch
from .clips import Clip, speaker_weights

Sample = Mapping[str, npt.NDArray[Any]]
Batch = dict[str, Tensor]


class ClipSampler:
    """Clips drawn by ``speaker_weights``. NoClipsError where none has ``least`` frames."""

    def __init__(self, clips: Sequence[Clip], *, least: int) -> None:
        self._clips = [clip for clip in clips if len(clip.faces) >= least]
        if not self._clips:
            raise NoClipsError(
                f"none of {len(clips)} clips has {least} frames; prepare longer footage"
            )
        # searched in place of numpy's choice, which checks all weights at every draw
        self._cumulative = speaker_weights(self._clips).cumsum()

    def __call__(self, rng: np.random.Generator) -> Clip:
        place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        return self._clips[min(int(place), len(self._clips) - 1)]


class WindowDraw:
    """Draws what the Wav2Lip recipes learn from: ``frames`` neighbouring frames of one clip, as
    many of the same clip that begin elsewhere, and their sound.

    Called with a random generator it gives ``target`` and ``reference`` (F,C,C,3) uint8, views of
    the disk where the clips are; ``sound`` (F,1,H,W), what a network with these ``features`` hears
    at each frame; and where there is an ``expert``, ``heard`` (F-window+1,1,80,16), what it hears
    at each of its windows among them. ``far``: the least distance of the two beginnings. Clips are
    drawn by ``speaker_weights``. NoClipsError when no clip is long enough, TrainingError for an
    expert that looks at more frames.
    """

    def __init__(
        self,
        clips: list[Clip],
        *,
        features: SoundFeatures = MelFeatures(lead_ms=40),
        expert: SyncExpertConfig | None = None,
        frames: int = 5,
        far: int = 1,
    ) -> None:
        self._draw = ClipSampler(clips, least=frames + 2 * far - 1)
        _check_window(expert, frames)
        self._features, self._expert, self._frames, self._far = features, expert, frames, far

    def __call__(self, rng: np.random.Generator) -> Sample:
        clip = self._draw(rng)
        begin, other = two_places(rng, len(clip.faces) - self._frames + 1, far=self._far)
        sample = {
            "target": clip.faces[begin : begin + self._frames],
            "reference": clip.faces[other : other + self._frames],
            "sound": clip.windows(self._features, begin, self._frames).numpy(),
        }
        if self._expert is not None:
            count = self._frames - self._expert.window + 1
            sample["heard"] = clip.windows(self._expert.features, begin, count).numpy()
        return sample


class DubDraw:
    """Draws windows of ``frames`` frames of two kinds: such as ``WindowDraw``'s.

    And, ``foreign`` of all, dubs: frames that are their own reference, as in use, beside the sound
    of one of ``voices``, of whose faces only the number counts.

    Gives ``target``, ``reference`` and ``sound`` as ``WindowDraw`` does; ``also`` (F,1,H,W), the
    same sound for a network with the features ``also``, where there are any; ``heard``
    (F-window+1+2*search,1,80,16), what ``expert`` hears at each of its windows and at as many
    frames as ``search`` before and after; ``talking`` (1,) bool: no dub. Errors as there.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        voices: Sequence[Clip],
        features: SoundFeatures,
        expert: SyncExpertConfig,
        frames: int,
        far: int,
        foreign: float,
        search: int = 0,
        also: SoundFeatures | None = None,
    ) -> None:
        self._draw, self._speak = (
            ClipSampler(clips, least=frames + 2 * far - 1),
            ClipSampler(voices, least=frames),
        )
        _check_window(expert, frames)
        self._features, self._also, self._expert, self._search = features, also, expert, search
        self._frames, self._far, self._foreign = frames, far, foreign

    def __call__(self, rng: np.random.Generator) -> Sample:
        clip, frames, talking = self._draw(rng), self._frames, rng.random() >= self._foreign
        begin, other = two_places(rng, len(clip.faces) - frames + 1, far=self._far)
        voice, at = clip, begin
        if not talking:
            voice, other = self._speak(rng), begin
            at = int(rng.integers(len(voice.faces) - frames + 1))
        sample = {
            "target": clip.faces[begin : begin + frames],
            "reference": clip.faces[other : other + frames],
            "sound": voice.windows(self._features, at, frames).numpy(),
            "talking": np.array([talking]),
        }
        if self._also is not None:
            sample["also"] = voice.windows(self._also, at, frames).numpy()
        count = frames - self._expert.window + 1 + 2 * self._search
        return sample | {
            "heard": voice.windows(self._expert.features, at - self._search, count).numpy()
        }


def two_places(rng: np.random.Generator, count: int, *, far: int) -> tuple[int, int]:
    """Two of ``count`` places, at least ``far`` from each other; ``count`` is 2 * far or more."""
    begin = int(rng.integers(count))
    before, after = max(0, begin - far + 1), max(0, count - begin - far)
    turn = int(rng.integers(before + after))
    return begin, turn if turn < before else begin + far + turn - before


def _check_window(expert: SyncExpertConfig | None, frames: int) -> None:
    if expert is not None and expert.window > frames:
        raise TrainingError(
            f"the expert looks at {expert.window} frames; wanted at most the {frames} that are "
            "drawn: raise frames, or name "
            "another expert"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch is this process's: the ``rank``-th of ``world``."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}; wanted 0 <= rank < world")


class Loader(Iterator[Batch]):
    """Batches without end: sample i of step s is ``draw`` with a generator seeded by (seed, s, i),
    and nothing else.

    So a run that stops and goes on sees what it would have seen, and the parts of a batch that
    several processes draw (``share``) make up the batch that one alone would have drawn: its first
    ``batch / world`` samples are rank 0's. Threads draw ``depth`` batches ahead; the state counts
    those that were handed out. Faces come as they lie on disk, uint8 and interleaved (B,F,C,C,3):
    ``permute(0, 1, 4, 2, 3)`` makes them planar, at best on the GPU.

    Used as a context, or closed, it stops its threads.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Sample],
        *,
        batch: int,
        seed: int,
        share: Share = Share(),
        threads: int = 2,
        depth: int = 2,
        pin: bool = False,
    ) -> None:
        if batch < 1 or batch % share.world:
            raise ValueError(
                f"a batch of {batch} for {share.world} processes; wanted a multiple of their number"
            )
        if threads < 1 or depth < 1:
            raise ValueError(f"threads {threads}, depth {depth}; wanted 1 or more of each")
        self._draw, self._batch, self._seed, self._share, self._depth = (
            draw,
            batch,
            seed,
            share,
            depth,
        )
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "loader")
        self._pin = pin
        self._step = 0
        self._made: Generator[Batch, None, None] | None = None

    def __next__(self) -> Batch:
        if self._made is None:
            self._made = prefetch(self._batches(self._step), depth=self._depth)
        batch = next(self._made)
        self._step += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """The batches handed out so far, and what they depend on."""
        return {"step": self._step, "batch": self._batch, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there. ValueError for the state of another batch size or seed, which would
        draw other samples."""
        wanted = {"batch": self._batch, "seed": self._seed}
        if got := {key: state[key] for key in wanted if state[key] != wanted[key]}:
            raise ValueError(f"the state is of a loader with {got}; this one has {wanted}")
        self._stop()
        self._step = int(state["step"])

    def close(self) -> None:
        self._stop()
        self._pool.shutdown()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        if self._made is not None:
            self._made.close()
        self._made = None

    def _batches(self, step: int) -> Generator[Batch, None, None]:
        count = self._batch // self._share.world
        first = self._share.rank * count
        while True:
            yield self._one(step, first, count)
            step += 1

    def _one(self, step: int, first: int, count: int) -> Batch:
        def sample(i: int) -> Sample:
            return self._draw(np.random.default_rng((self._seed, step, first + i)))

        head = sample(0)
        # torch's allocator, which gets its old memory back: new pages would cost more than what is
        # copied into them
        batch = {
            name: torch.empty(
                (count, *array.shape),
                dtype=torch.from_numpy(array[:0].copy()).dtype,
                pin_memory=self._pin,
            )
            for name, array in head.items()
        }
        rows = {name: tensor.numpy() for name, tensor in batch.items()}

        def fill(indices: range) -> None:  # the one copy, from the disk's cache into the batch
            for i in indices:
                for name, array in (sample(i) if i else head).items():
                    rows[name][i] = array

        for _ in self._pool.map(
            fill, (range(k, count, self._threads) for k in range(self._threads))
        ):
            pass
        return batch
