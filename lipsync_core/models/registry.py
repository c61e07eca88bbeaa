"""The networks by the names that weight files give them."""

from typing import Any

from torch import nn

from .baselines.lipgan import LipGAN, LipGANConfig
from .baselines.lipgan_discriminator import LipGANDiscriminator, LipGANDiscriminatorConfig
from .baselines.speech2vid import Speech2Vid, Speech2VidConfig
from .face_detector import FaceDetector, FaceDetectorConfig
from .face_landmarks import FaceLandmarks, FaceLandmarksConfig
from .face_parsing import FaceParsing, FaceParsingConfig
from .inception import Inception, InceptionConfig
from .lip_warp import LipWarp, LipWarpConfig
from .quality_discriminator import QualityDiscriminator, QualityDiscriminatorConfig
from .s3fd import S3FD, S3FDConfig
from .speech_lips import SpeechLips, SpeechLipsConfig
from .sync_expert import SyncExpert, SyncExpertConfig
from .syncnet import SyncNet, SyncNetConfig
from .wav2lip import Generator, GeneratorConfig
from .wav2lip_hd import LargeGenerator, LargeGeneratorConfig

MODELS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "generator": (GeneratorConfig, Generator),
    "sync_expert": (SyncExpertConfig, SyncExpert),
    "quality_discriminator": (QualityDiscriminatorConfig, QualityDiscriminator),
    "face_detector": (FaceDetectorConfig, FaceDetector),
    "face_landmarks": (FaceLandmarksConfig, FaceLandmarks),
    "face_parsing": (FaceParsingConfig, FaceParsing),
    "s3fd": (S3FDConfig, S3FD),
    "fid_inception": (InceptionConfig, Inception),
    "syncnet": (SyncNetConfig, SyncNet),
    "lipgan": (LipGANConfig, LipGAN),
    "lipgan_discriminator": (LipGANDiscriminatorConfig, LipGANDiscriminator),
    "speech2vid": (Speech2VidConfig, Speech2Vid),
    "speech_lips": (SpeechLipsConfig, SpeechLips),
    "lip_warp": (LipWarpConfig, LipWarp),
    "large_generator": (LargeGeneratorConfig, LargeGenerator),
}
