"""Predict lip shapes from speech: opening and width of the mouth, drop of the jaw."""

from dataclasses import dataclass

from torch import Tensor, nn

from ..audio.features import MelFeatures

SHAPE = 3  # opening, width, jaw


@dataclass(frozen=True, slots=True)
class SpeechLipsConfig:
    """Shape of the network, and its input.

    Attributes:
        width: Of its layers.
        features: Audio features. The window of 41 columns reaches from 275 ms before a frame to 225
            ms after it, and 25 ms more under the last column: 0.25 s of look-ahead.
    """

    width: int = 128
    features: MelFeatures = MelFeatures(steps=41, lead_ms=275)


class SpeechLips(nn.Module):
    """Predicts lip shapes (N,3) from log-mel windows (N,1,80,41) in [-4,4]."""

    def __init__(self, config: SpeechLipsConfig) -> None:
        super().__init__()
        self.config = config
        width, steps = config.width, config.features.steps

        def conv(inputs: int, kernel: int) -> list[nn.Module]:
            layer = nn.Conv1d(inputs, width, kernel, 2, kernel // 2)
            return [layer, nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1)]

        layers = [*conv(config.features.bands, 5), *conv(width, 5), *conv(width, 3)]
        for _ in range(3):
            steps = (steps + 1) // 2
        head = [
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(width * steps, width),
            nn.ReLU(),
            nn.Linear(width, SHAPE),
        ]
        self.layers = nn.Sequential(*layers, *head)

    def forward(self, mel: Tensor) -> Tensor:
        """Predict the shape of the lips at the frame of each window.

        Args:
            mel: (N,1,80,41) log-mel windows in [-4,4], as ``config.features.windows`` gives them.

        Returns:
            (N,3) opening, width and jaw relative to the closed, neutral mouth, in standard
            deviations of a speaker.
        """
        return self.layers(mel[:, 0])
