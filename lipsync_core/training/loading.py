"""Random batches that depend on the seed alone, not on interruptions or the number of processes."""

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
    """Draws clips with the probabilities of ``speaker_weights``.

    Args:
        clips: the clips to draw from.
        least: clips with fewer frames are never drawn.

    Raises:
        NoClipsError: no clip has ``least`` frames.
    """

    def __init__(self, clips: Sequence[Clip], *, least: int) -> None:
        self._clips = [clip for clip in clips if len(clip.faces) >= least]
        if not self._clips:
            raise NoClipsError(
                f"none of {len(clips)} clips has {least} frames; prepare longer footage"
            )
        # searched in place of numpy's choice, which checks all weights at every draw
        self._cumulative = speaker_weights(self._clips).cumsum()

    def __call__(self, rng: np.random.Generator) -> Clip:
        """Draw a clip."""
        place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        return self._clips[min(int(place), len(self._clips) - 1)]


class WindowDraw:
    """Draws samples of the Wav2Lip recipes: neighboring frames, a reference and their sound.

    Called with a random generator it returns a dict:

    - ``target`` and ``reference``: (F,C,C,3) uint8, neighboring frames of one clip and as many
      that begin elsewhere in it; views of the disk if the clips are there.
    - ``sound``: (F,1,H,W), the windows of ``features`` at each frame.
    - ``heard``, if there is an ``expert``: (F-window+1,1,80,16), the sound of each of its
      windows.

    Args:
        clips: the clips, drawn by ``speaker_weights``.
        features: the sound features of the network.
        expert: configuration of the sync expert, if there is one.
        frames: number F of frames.
        far: least distance of the beginnings of target and reference, in frames.

    Raises:
        NoClipsError: no clip is long enough.
        TrainingError: the expert takes more frames than ``frames``.
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
        """Draw a sample."""
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
    """Draws training samples of two kinds: those of ``WindowDraw`` and dubs.

    A dub has frames that are their own reference, as in use, and the sound of one of
    ``voices``.

    Called with a random generator it returns ``target``, ``reference`` and ``sound`` as
    ``WindowDraw`` does, and:

    - ``also``, if given: (F,1,H,W), the same sound in the features ``also``.
    - ``heard``: (F-window+1+2*search,1,80,16), the sound of each window of ``expert`` and of
      ``search`` frames before and after.
    - ``talking``: (1,) bool, False for a dub.

    Args:
        clips: the clips, drawn by ``speaker_weights``.
        voices: the clips that dubs take their sound from; of their faces only the number is
            used.
        features: the sound features of the network.
        expert: configuration of the sync expert.
        frames: number F of frames.
        far: least distance of the beginnings of target and reference, in frames.
        foreign: share of dubs, in [0,1].
        search: frames of sound before and after that the expert gets.
        also: sound features of a second network.

    Raises:
        NoClipsError: no clip is long enough.
        TrainingError: the expert takes more frames than ``frames``.
    """

    def __init__(  # noqa: PLR0913
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
        """Draw a sample."""
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
    """Draw two places at least ``far`` apart.

    Args:
        rng: the generator.
        count: number of places, at least 2 * far.
        far: least distance.

    Returns:
        Two numbers in [0, count).
    """
    begin = int(rng.integers(count))
    before, after = max(0, begin - far + 1), max(0, count - begin - far)
    turn = int(rng.integers(before + after))
    return begin, turn if turn < before else begin + far + turn - before


def _check_window(expert: SyncExpertConfig | None, frames: int) -> None:
    if expert is not None and expert.window > frames:
        raise TrainingError(
            f"the expert looks at {expert.window} frames; expected at most the {frames} that are "
            "drawn: raise frames, or name another expert"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every batch belongs to this process.

    Attributes:
        rank: number of the process, from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}; expected 0 <= rank < world")


class Loader(Iterator[Batch]):
    """Endless batches: sample i of step s depends on (seed, s, i) and on nothing else.

    A run that stops and resumes therefore sees the batches that it would have seen, and the
    parts of a batch that several processes draw make up the batch that one alone would have
    drawn: its first ``batch / world`` samples are rank 0's. Faces come as they are on disk,
    uint8 and interleaved (B,F,C,C,3): ``permute(0, 1, 4, 2, 3)`` makes them planar, at best on
    the GPU.

    Used as a context, or closed, it stops its threads.

    Args:
        draw: returns one sample from a generator.
        batch: samples per step over all processes, a multiple of their number.
        seed: seed of all draws.
        share: the part of every batch that this process draws.
        threads: number of threads that draw samples.
        depth: batches drawn ahead; the state counts those that were handed out.
        pin: whether batches are in pinned memory, for copies to a GPU.

    Raises:
        ValueError: the batch cannot be shared evenly, or ``threads`` or ``depth`` is below 1.
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
                f"a batch of {batch} for {share.world} processes; expected a multiple of their "
                "number"
            )
        if threads < 1 or depth < 1:
            raise ValueError(f"threads {threads}, depth {depth}; expected 1 or more of each")
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
        """Return the number of batches handed out so far, the batch size and the seed."""
        return {"step": self._step, "batch": self._batch, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Resume from a state.

        Args:
            state: what ``state_dict`` returned.

        Raises:
            ValueError: the state is of another batch size or seed, which would draw other samples.
        """
        wanted = {"batch": self._batch, "seed": self._seed}
        if got := {key: state[key] for key in wanted if state[key] != wanted[key]}:
            raise ValueError(f"the state is of a loader with {got}; this one has {wanted}")
        self._stop()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stop the threads."""
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
