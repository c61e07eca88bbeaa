"""Recognize the public networks by the names of their layers, whatever the file is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from .s3fd import SYNCNET_NAMES, SYNCNET_S3FD
from .wav2lip_hd import (
    WAV2LIP_288,
    WAV2LIP_288_MIXED,
    WAV2LIP_288_PRELU,
    WAV2LIP_384,
    WAV2LIP_384_SAM,
    LargeGeneratorConfig,
)


@dataclass(frozen=True, slots=True)
class Network:
    """A public network.

    Attributes:
        title: Description for messages.
        kind: Our own name for it.
        marks: Key prefixes that no earlier network in the table has together (networks with more
            layers come first).
        config: Its shape if it differs from the one in ``weights.PUBLIC``.
        renames: Our name of each of its layers.
        untested: Whether it is known from its code alone, never tried on a real file.
    """

    title: str
    kind: str
    marks: tuple[str, ...]
    config: Any = None
    renames: Mapping[str, str] = field(default_factory=dict)
    untested: bool = False


def _derivative(title: str, config: LargeGeneratorConfig, *marks: str) -> Network:
    """Describe a generator for larger faces whose layers are named as the classic one's."""
    return Network(
        title, "large_generator", ("face_decoder_blocks.", *marks), config, untested=True
    )


# Key names of the public files, as their code gives them: Wav2Lip, syncnet_python, face_alignment,
# pytorch-fid, face-parsing.PyTorch.
NETWORKS = (
    _derivative(
        "a 384 px derivative of Wav2Lip with spatial attention",
        WAV2LIP_384_SAM,
        "sam.",
        "audio_refine.",
    ),
    _derivative(
        "a 384 px derivative of Wav2Lip", WAV2LIP_384, "face_encoder_blocks.8.", "audio_refine."
    ),
    _derivative(
        "a 288 px derivative of Wav2Lip (PReLU)",
        WAV2LIP_288_PRELU,
        "face_encoder_blocks.8.",
        "audio_encoder.0.act.",
    ),
    _derivative(
        "a 288 px derivative of Wav2Lip (PReLU on its way up)",
        WAV2LIP_288_MIXED,
        "face_encoder_blocks.8.",
        "face_decoder_blocks.1.0.act.",
    ),
    _derivative("a 288 px derivative of Wav2Lip", WAV2LIP_288, "face_encoder_blocks.8."),
    Network(
        "a Wav2Lip generator",
        "generator",
        ("face_decoder_blocks.", "audio_encoder.", "output_block."),
    ),
    Network("a Wav2Lip lip-sync expert", "sync_expert", ("face_encoder.", "audio_encoder.")),
    Network(
        "a Wav2Lip quality discriminator",
        "quality_discriminator",
        ("face_encoder_blocks.", "binary_pred."),
    ),
    Network(
        "the S3FD face detector", "s3fd", ("conv1_1.", "conv3_3_norm.", "conv3_3_norm_mbox_conf.")
    ),
    Network("the SyncNet v2 sync scorer", "syncnet", ("netcnnaud.", "netcnnlip.", "netfcaud.")),
    Network(
        "syncnet_python's S3FD face detector (sfd_face)",
        "s3fd",
        ("vgg.0.", "L2Norm3_3.", "loc."),
        SYNCNET_S3FD,
        SYNCNET_NAMES,
    ),
    Network("the FID Inception network", "fid_inception", ("Conv2d_1a_3x3.", "Mixed_7c.", "fc.")),
    Network(
        "the BiSeNet face parser",
        "face_parsing",
        ("cp.resnet.", "cp.arm16.", "ffm.", "conv_out32."),
    ),
)


def recognize(tensors: Mapping[str, Tensor], path: Path) -> Network:
    """Find the network that the keys belong to.

    Args:
        tensors: The tensors of a weight file by key.
        path: The file, for the error message.

    Returns:
        The network.

    Raises:
        WeightsError: If no known network has such keys.
    """
    for network in NETWORKS:
        if all(any(key.startswith(mark) for key in tensors) for mark in network.marks):
            return network
    first = ", ".join(list(tensors)[:3])
    known = ", ".join(network.title for network in NETWORKS)
    raise WeightsError(
        f"{path} is of an unknown network ({len(tensors)} tensors: {first} ...); known: {known}"
    )


def to_our_names(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors as our network of that kind names them; unknown names stay as they are.

    Args:
        network: The network that they belong to.
        tensors: The tensors by the file's keys.

    Returns:
        The same tensors by our keys.
    """
    parts = {key: key.rpartition(".") for key in tensors}
    return {
        network.renames.get(layer, layer) + dot + leaf: tensors[key]
        for key, (layer, dot, leaf) in parts.items()
    }
