#!/usr/bin/env bash
# SSIM of one pair of pictures is 0.48, 0.53, 0.56, 0.64 and 0.79, by scikit-image (Gaussian and
# default), FFmpeg on RGB, sewar, and FFmpeg on YUV 4:2:0.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check scikit-image==0.26.0 sewar==0.4.10 av==18.1.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
from fractions import Fraction
from importlib.metadata import version

import av
import numpy as np
import sewar
from skimage.metrics import structural_similarity

y, x = np.mgrid[:96, :128]
waves = 128 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5)
a = np.stack([waves, 1.9 * x, 255 - 2.5 * y], 2).clip(0, 255).astype(np.uint8)
noise = np.random.default_rng(0).normal(0, 12, a.shape)
b = (a + noise).clip(0, 255).astype(np.uint8)


def ffmpeg_ssim(pixel_format):
    graph = av.filter.Graph()
    size = {"width": 128, "height": 96, "format": av.VideoFormat(pixel_format)}
    sources = [graph.add_buffer(**size, time_base=Fraction(1, 25)) for _ in range(2)]
    ssim, sink = graph.add("ssim"), graph.add("buffersink")
    for pad, source in enumerate(sources):
        source.link_to(ssim, 0, pad)
    ssim.link_to(sink)
    graph.configure()
    for source, image in zip(sources, (a, b)):
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixel_format)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        source.push(frame)
    return float(graph.pull().metadata["lavfi.ssim.All"])


gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
got = {
    f"scikit-image {version('scikit-image')}, Gaussian": structural_similarity(a, b, channel_axis=2, **gauss),
    f"scikit-image {version('scikit-image')}, default": structural_similarity(a, b, channel_axis=2),
    f"FFmpeg in av {av.__version__}, RGB": ffmpeg_ssim("gbrp"),
    f"sewar {version('sewar')}": sewar.ssim(a, b)[0],
    f"FFmpeg in av {av.__version__}, YUV 4:2:0": ffmpeg_ssim("yuv420p"),
}
for name, value in got.items():
    print(f"{name}: {value:.3f}")
wanted = np.array([0.485, 0.534, 0.564, 0.642, 0.787])
assert np.abs(np.array(list(got.values())) - wanted).max() < 0.01, "the behavior has changed"
PY
