"""Join a trained SpeechLips and FaceLandmarks into one model that moves lips.

    python -m train.lip_warp SPEECH.safetensors LANDMARKS.safetensors DATA LABELS OUT.safetensors

A regression moves less than real lips: it keeps to the mean where it is unsure. Per column the
quantiles of its predictions for the training clips are therefore mapped to those of the true
shapes, with equal weight for every person.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from lipsync_core.models.face_landmarks import FaceLandmarks
from lipsync_core.models.lip_warp import KNOTS, LipWarp, LipWarpConfig
from lipsync_core.models.speech_lips import SHAPE, SpeechLips
from lipsync_core.models.weights import load_model, save_model
from train.talks import TEACHING, Talk, normalize, predict, read_talks

LICENCE = "Apache-2.0"
SOURCE = (
    "train/lip_warp.py: speech_lips and face_landmarks of this project, and the spread of its "
    "training clips"
)
_DRAWN = 2000  # frames of each person


def curves(net: SpeechLips, talks: list[Talk]) -> tuple[Tensor, Tensor]:
    """Return the quantiles of predicted shapes and of true ones.

    Args:
        net: the network.
        talks: the training clips.

    Returns:
        (3,KNOTS) each, in standard deviations.
    """
    said, true = [], []
    for person in sorted({talk.person for talk in talks}):
        own = [talk for talk in talks if talk.person == person]
        index = torch.linspace(0, 1, _DRAWN)
        for rows, out in (
            (torch.cat([predict(net, talk, net.config.features) for talk in own]), said),
            (torch.cat([t.target for t in own]), true),
        ):
            out.append(torch.stack([rows[:, i].quantile(index) for i in range(SHAPE)]))
    points = torch.linspace(0.005, 0.995, KNOTS)
    pooled = [torch.cat(rows, 1).quantile(points, dim=1).T for rows in (said, true)]
    heard, shown = pooled
    return rising(heard), shown


def rising(knots: Tensor) -> Tensor:
    """Return knots (3,KNOTS) that are at least a little apart."""
    step = 1e-3 * torch.arange(KNOTS)
    return knots.cummax(1).values + step


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("speech", "landmarks", "data", "labels", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()

    torch.set_num_threads(1)
    speech, landmarks = (
        load_model(args.speech, kind="speech_lips"),
        load_model(args.landmarks, kind="face_landmarks"),
    )
    assert isinstance(speech, SpeechLips) and isinstance(landmarks, FaceLandmarks)
    model = LipWarp(
        LipWarpConfig(
            width=speech.config.width, landmarks=landmarks.config, features=speech.config.features
        )
    ).eval()
    model.speech.load_state_dict(speech.state_dict())
    model.landmarks.load_state_dict(landmarks.state_dict())
    talks = normalize(read_talks(args.data, args.labels, TEACHING, speech.config.features))
    heard, shown = curves(speech, talks)
    people = sorted({talk.person for talk in talks})
    every = [
        torch.cat([talk.shape for talk in talks if talk.person == person]) for person in people
    ]
    closed = [rows[rows[:, 0] <= rows[:, 0].quantile(0.1)].mean(0) for rows in every]
    model.heard.copy_(heard)
    model.shown.copy_(shown)
    model.neutral.copy_(torch.stack(closed).mean(0))
    model.spread.copy_(torch.stack([rows.std(0) for rows in every]).mean(0))
    torch.set_printoptions(precision=3, linewidth=200)
    print(
        "heard", heard, "shown", shown, "neutral", model.neutral, "spread", model.spread, sep="\n"
    )
    save_model(model, args.out, licence=LICENCE, source=SOURCE, dtype=torch.float16)


if __name__ == "__main__":
    main()
