"""Train the network that predicts the shape of the lips from speech.

    python -m train.speech_lips DATA LABELS OUT [--steps 1500] [--leave-out PERSON ...]

Talking clips of many people: DATA/FOLDER/NAME goes with LABELS/FOLDER_NAME.npz of
label_landmarks.py. Prints how well the opening, width and jaw of each held-out clip are predicted
(correlation, the best of lags within 2 frames, after the clip's own offset).
"""

import argparse
import json
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_core.audio.features import (
    MelFeatures,
    log_mel,
    mean_columns,
    mean_spectrum,
    subtract_spectrum,
    window_start,
)
from lipsync_core.image.landmarks import MEDIAPIPE_VERTICES, lip_shapes
from lipsync_core.media import read_audio
from lipsync_core.models.speech_lips import SpeechLips, SpeechLipsConfig
from lipsync_core.models.weights import load_model, save_model

FPS = Fraction(25)
TEACHING = ("train/grid_s1", "train/grid_s4", "train/grid_other", "train/crema_1001", "train/other")
CLIPS, WINDOWS, SILENT = 16, 14, 28  # of a step: clips, windows of each, and windows of silence
PEAK_RATE, WEIGHT_DECAY = 2e-3, 1e-2
# frames: within which a correlation is the best, and a clip's own offset is sought
LAGS, OFFSETS = 2, 6
IN_SYNC = {"grid_s1", "grid_s4", "crema_1001", "mA", "mB", "mC", "wA", "wB", "wD"}
LEVEL = 12.5  # dB of one unit of log-mel
LICENCE = "Apache-2.0"
SOURCE = (
    "trained by train/speech_lips.py on talking clips that MediaPipe's attention mesh labeled: "
    "GRID and others"
)


@dataclass(slots=True, eq=False)
class Talk:
    """One clip of N frames.

    Attributes:
        name: its file name.
        person: who speaks.
        mel: (80,M) log-mel columns.
        starts: (N,) the first column of each frame's window.
        shape: (N,3) lip shapes in distances of the outer eye corners.
        target: (N,3) the same as the network predicts them.
        spectrum: (80,) mean spectrum of the sound.
        offset: frames by which the lips are late.
    """

    name: str
    person: str
    mel: Tensor
    starts: Tensor
    shape: Tensor
    target: Tensor
    spectrum: Tensor
    offset: int = 0

    def windows(self, frames: Tensor, steps: int) -> Tensor:
        """Return the mel windows (K,80,steps) at ``frames`` (K,)."""
        index = self.starts[frames][:, None] + torch.arange(steps)
        return self.mel[:, index].permute(1, 0, 2)


def read_talk(source: Path, labels: Path, person: str, config: SpeechLipsConfig) -> Talk | None:
    """Read a clip.

    Args:
        source: the video.
        labels: its labels.
        person: who speaks.
        config: the network's configuration.

    Returns:
        The clip; None if the face is seen in less than 80 % of it, or it is shorter than a second.
    """
    with np.load(labels) as file:
        times, points = torch.from_numpy(file["times"]), torch.from_numpy(file["points"])
    points = points[:, list(MEDIAPIPE_VERTICES)]
    seen = ~points[:, 0, 0].isnan()
    if len(times) < 25 or seen.float().mean() < 0.8:
        return None
    shape = lip_shapes(points[seen]).numpy()
    audio = read_audio(source, rate=config.features.rate)
    grid = np.arange(0, min(float(times[-1]), audio.samples.shape[1] / audio.rate), float(1 / FPS))
    known = times[seen].numpy()
    rows = torch.from_numpy(
        np.stack([np.interp(grid, known, shape[:, i]) for i in range(3)], 1)
    ).float()
    first = window_start(0, FPS, config.features)
    starts = torch.tensor([window_start(i, FPS, config.features) - first for i in range(len(grid))])
    mel = log_mel(
        audio, first=first, count=int(starts[-1]) + config.features.steps, features=config.features
    ).float()
    spectrum = mean_spectrum(audio, config.features).float()
    return Talk(source.name, person, mel, starts, rows, rows, spectrum)


def read_talks(
    data: Path, labels: Path, folders: tuple[str, ...], config: SpeechLipsConfig
) -> list[Talk]:
    """Read the labeled clips of folders."""
    talks = []
    for folder in folders:
        for source in sorted((data / folder).iterdir()):
            path = labels / f"{source.parent.name}_{source.name}.npz"
            short = folder.split("/")[-1]
            person = (
                source.stem.split("_")[0]
                if short in ("other", "grid_other", "elospheres", "test")
                else short
            )
            talk = read_talk(source, path, person, config) if path.exists() else None
            if talk is not None:
                talks.append(talk)
    return talks


def normalize(talks: list[Talk]) -> None:
    """Express shapes relative to the person's closed mouth, in the person's standard deviations."""
    for person in {talk.person for talk in talks}:
        own = [talk for talk in talks if talk.person == person]
        every = torch.cat([talk.shape for talk in own])
        closed = every[:, 0] <= every[:, 0].quantile(0.1)
        neutral = torch.cat([every[:, :1].quantile(0.05, 0), every[closed][:, 1:].mean(0)])
        for talk in own:
            talk.target = (talk.shape - neutral) / every.std(0).clamp_min(1e-4)


def augment(mel: Tensor, rng: torch.Generator) -> Tensor:
    """Return windows (K,80,T) of one clip as another voice, microphone and room would have them."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    bands = mel.shape[1]
    if uniform(0, 1) < 0.7:  # formants and pitch: up to 5 bands
        shift = int(torch.randint(-5, 6, (), generator=rng))
        mel = mel.roll(shift, 1)
        if shift > 0:
            mel[:, :shift] = mel[:, shift : shift + 1]
        elif shift < 0:
            mel[:, shift:] = mel[:, shift - 1 : shift]
    tone = F.interpolate(
        torch.randn(1, 1, 6, generator=rng) * 0.25, (bands,), mode="linear", align_corners=True
    )[0, 0]
    # of what is heard of the clip: quiet recordings must not drown in noise
    loud = float(mel.mean(1).quantile(0.9))
    gain = uniform(-0.8, 0.5)
    mel = (mel + gain + tone[:, None]).clamp(-4, 4)
    if uniform(0, 1) < 0.2:  # a room: what sounded before is still heard
        decay = uniform(0.5, 0.85)
        kept = [mel[..., 0]]
        for step in mel.unbind(2)[1:]:
            kept.append(torch.maximum(step, kept[-1] - (1 - decay) * 1.6))
        mel = torch.stack(kept, 2)
    if uniform(0, 1) < 0.35:  # 10 to 45 dB below the speech
        mel = add_noise(mel, loud + gain - uniform(0.8, 3.6) + 0.5 * tone.flip(0)[:, None], rng)
    return mel + torch.randn(mel.shape, generator=rng) * 0.05


def add_noise(mel: Tensor, floor: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``mel`` (K,80,T) over a noise whose level is ``floor`` (80,1): powers add."""
    # 5.6 dB: Rayleigh-distributed magnitudes
    noise = floor + torch.randn(mel.shape, generator=rng) * 0.45
    scale = LEVEL / 10
    return ((10 ** (mel * scale) + 10 ** (noise * scale)).log10() / scale).clamp(-4, 4)


def silence(count: int, steps: int, rng: torch.Generator) -> Tensor:
    """Draw windows without speech: digital silence, and noise of any color up to -45 dBFS.

    Args:
        count: number of windows.
        steps: columns of a window.
        rng: the generator.

    Returns:
        (count,80,steps).
    """
    floor = torch.rand(count, 1, 1, generator=rng) * 4.2 - 4.3
    points = torch.randn(count, 1, 5, generator=rng) * 0.6
    tone = F.interpolate(points, (80,), mode="linear", align_corners=True)[:, 0, :, None]
    mel = (floor + tone + torch.randn(count, 80, steps, generator=rng) * 0.45).clamp(-4, 4)
    mel[: count // 4] = -4
    for window in mel[
        count // 2 :
    ]:  # where a recording begins or ends, noise does so at once: that is no speech either
        place = int(torch.randint(1, steps, (), generator=rng))
        part = (
            window[:, :place] if float(torch.rand((), generator=rng)) < 0.5 else window[:, place:]
        )
        part[:] = -4
    return mel


def subtract_mean(windows: Tensor, features: MelFeatures) -> Tensor:
    """Subtract from windows (K,80,T) of one clip the mean spectrum of their columns."""
    mean = mean_columns(windows.transpose(0, 1).flatten(1))
    return subtract_spectrum(windows, mean, features)


def relative_silence(heard: list[Tensor], config: SpeechLipsConfig, rng: torch.Generator) -> Tensor:
    """Draw windows without speech: of pauses in talks, and of sounds that are silent throughout.

    Args:
        heard: windows (K,80,T) of each talk, before their means are subtracted.
        config: the network's configuration.
        rng: the generator.

    Returns:
        (SILENT,80,T) less the mean spectra of the talks, or of the silence itself.
    """
    drawn = silence(SILENT, config.features.steps, rng)
    rows = []
    for window in drawn:
        talk = int(torch.randint(-len(heard), len(heard), (), generator=rng))
        around = heard[talk] if talk >= 0 else window[None]
        mean = mean_columns(around.transpose(0, 1).flatten(1))
        rows.append(subtract_spectrum(window, mean, config.features))
    return torch.stack(rows)


def step_loss(
    net: SpeechLips, talks: dict[str, list[Talk]], weights: Tensor, rng: torch.Generator
) -> Tensor:
    """Return the loss of a random batch.

    Args:
        net: the network.
        talks: the clips of each person.
        weights: how likely each person is drawn.
        rng: the generator.
    """
    steps, people = net.config.features.steps, list(talks)
    heard, wanted = [], []
    for person in torch.multinomial(weights, CLIPS, replacement=True, generator=rng).tolist():
        own = talks[people[person]]
        talk = own[int(torch.randint(len(own), (), generator=rng))]
        low, high = max(0, -talk.offset), len(talk.target) - max(0, talk.offset)
        frames = torch.randint(low, high, (WINDOWS,), generator=rng)
        heard.append(augment(talk.windows(frames, steps), rng))
        wanted.append(talk.target[frames + talk.offset])
    wanted.append(torch.zeros(SILENT, 3))
    quiet = relative_silence(heard, net.config, rng)
    heard = [*(subtract_mean(windows, net.config.features) for windows in heard), quiet]
    found, right = net(torch.cat(heard)[:, None]), torch.cat(wanted)
    return (
        F.smooth_l1_loss(found, right, reduction="none").mul(torch.tensor([2.0, 1.0, 1.0])).mean()
    )


@torch.inference_mode()
def predict(net: SpeechLips, talk: Talk) -> Tensor:
    """Return the shapes (N,3) that the network predicts for a clip."""
    features = net.config.features
    windows = talk.windows(torch.arange(len(talk.starts)), features.steps)
    return net(subtract_spectrum(windows, talk.spectrum, features)[:, None])


def correlations(found: Tensor, talk: Talk, lags: int) -> list[tuple[float, int]]:
    """Return how well shapes are predicted.

    Args:
        found: (N,3) predicted shapes.
        talk: the clip.
        lags: frames around the clip's offset in which the best correlation is taken.

    Returns:
        Correlation and lag of opening, width and jaw.
    """
    best = []
    for column in range(3):
        rows = []
        for lag in range(talk.offset - lags, talk.offset + lags + 1):
            a, b = found[:, column].numpy(), talk.shape[:, column].numpy()
            a, b = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag])
            rows.append((float(np.corrcoef(a, b)[0, 1]), lag))
        best.append(max(rows))
    return best


def fit(
    net: SpeechLips, talks: list[Talk], steps: int, seed: int, *, rate: float = PEAK_RATE
) -> None:
    """Train the network.

    Args:
        net: the network, changed in place.
        talks: the clips.
        steps: number of steps.
        seed: decides every draw.
        rate: largest learning rate.
    """
    by_person: dict[str, list[Talk]] = {}
    for talk in talks:
        by_person.setdefault(talk.person, []).append(talk)
    frames = torch.tensor(
        [float(sum(len(talk.target) for talk in own)) for own in by_person.values()]
    )
    weights = frames.clamp_max(900)  # evenly, but for those of whom there is little
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    net.train()
    began = time.monotonic()
    for step in range(steps):
        loss = step_loss(
            net, by_person, weights, torch.Generator().manual_seed(seed * 1_000_003 + step)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step {step} loss {loss.item():.4f} {time.monotonic() - began:.0f} s", flush=True
            )
    net.eval()


def align(net: SpeechLips, talks: list[Talk]) -> None:
    """Find by how many frames each person's lips are late, where that can be measured.

    GRID and CREMA-D are known to agree.
    """
    for person in {talk.person for talk in talks} - IN_SYNC:
        own = [talk for talk in talks if talk.person == person]
        found = [correlations(predict(net, talk), talk, OFFSETS)[0] for talk in own]
        lags = sorted(lag for value, lag in found if value > 0.35)
        for talk in own:
            talk.offset = lags[len(lags) // 2] if lags else 0


def report(net: SpeechLips, talks: list[Talk]) -> dict[str, list[float]]:
    """Print and return the mean correlations of each person."""
    rows: dict[str, list[list[float]]] = {}
    for talk in talks:
        rows.setdefault(talk.person, []).append(
            [r for r, _ in correlations(predict(net, talk), talk, LAGS)]
        )
    means = {person: np.mean(values, 0).round(3).tolist() for person, values in rows.items()}
    for person, values in means.items():
        print(
            f"{person:12s} n {len(rows[person]):3d}  opening {values[0]:.2f}  width "
            f"{values[1]:.2f}  jaw {values[2]:.2f}"
        )
    return means


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--leave-out", nargs="*", default=[], help="people who teach nothing and are reported"
    )
    parser.add_argument(
        "--held-out", nargs="*", default=["val/grid_s1", "val/other", "val/elospheres"]
    )
    parser.add_argument(
        "--start", type=Path, help="go on from what an earlier run wrote, at half its rate"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    config = SpeechLipsConfig()
    taught = read_talks(args.data, args.labels, TEACHING, config)
    strangers = [talk for talk in taught if talk.person in args.leave_out]
    taught = [talk for talk in taught if talk.person not in args.leave_out]
    strangers += read_talks(args.data, args.labels, tuple(args.held_out), config)
    normalize(taught)
    print(f"{len(taught)} clips teach, {len(strangers)} are held out", flush=True)
    net = SpeechLips(config)
    if args.start:
        began = load_model(args.start, kind="speech_lips")
        net.load_state_dict(began.state_dict())
        net.eval()
    else:
        # a first look, which finds the clips' own offsets
        fit(net, taught, args.steps // 3, args.seed)
    align(net, taught)
    print("offsets", {talk.person: talk.offset for talk in taught if talk.offset}, flush=True)
    net = net if args.start else SpeechLips(config)
    fit(net, taught, args.steps, args.seed, rate=PEAK_RATE / 2 if args.start else PEAK_RATE)
    align(net, strangers)
    print("held-out offsets", {t.name: t.offset for t in strangers if t.offset})
    means = report(net, strangers)
    (args.out / "report.json").write_text(json.dumps(means, indent=1) + "\n")
    save_model(
        net,
        args.out / "speech_lips.safetensors",
        licence=LICENCE,
        source=SOURCE,
        dtype=torch.float16,
    )


if __name__ == "__main__":
    main()
