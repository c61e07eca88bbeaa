"""Convert HDR and wide-gamut pictures to BT.709, by the formulas of the standards."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

PQ, HLG = 16, 18  # ITU-T H.273, table 3
_WHITE = 203  # cd/m2 of HDR reference white, which becomes SDR white: ITU-R BT.2408
_HLG_PEAK, _HLG_GAMMA = 1000, 1.2  # display of ITU-R BT.2100, table 5
_SDR_GAMMA = 2.4  # ITU-R BT.1886
# ITU-R BT.2087: linear RGB of BT.2020 to that of BT.709
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020


def to_bt709(planes: npt.NDArray[np.uint16], transfer: int, *, wide: bool) -> npt.NDArray[np.uint8]:
    """Convert a picture to 8-bit BT.709; what is brighter than SDR white is clipped.

    Args:
        planes: (3,H,W) RGB, full range.
        transfer: Code of the transfer characteristics; other than PQ and HLG is SDR.
        wide: Whether the primaries are those of BT.2020.

    Returns:
        (3,H,W) RGB, full range.
    """
    light = _decoding(transfer)[planes]
    if transfer == HLG:
        # The factor of the display is a power of the luminance.
        luminance = np.tensordot(_LUMINANCE, light, 1)
        light *= _HLG_PEAK / _WHITE * luminance ** np.float32(_HLG_GAMMA - 1)
    if wide:
        light = np.tensordot(_TO_709, light, 1)
    return _encoding()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]


@lru_cache(maxsize=3)
def _decoding(transfer: int) -> npt.NDArray[np.float32]:
    """Light for each of 65536 coded values: SDR white is 1; of HLG the scene's, whose peak is 1."""
    code = np.arange(65536) / 65535
    if transfer == PQ:  # SMPTE ST 2084
        root = code ** (32 / 2523)
        light = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
        light = 10_000 / _WHITE * light ** (16384 / 2610)
    elif transfer == HLG:  # ITU-R BT.2100
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        light = code**_SDR_GAMMA
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _encoding() -> npt.NDArray[np.uint8]:
    """8-bit values for 65536 steps of light."""
    return np.round(255 * (np.arange(65536) / 65535) ** (1 / _SDR_GAMMA)).astype(np.uint8)
