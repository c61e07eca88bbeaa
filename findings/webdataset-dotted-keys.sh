#!/usr/bin/env bash
# WebDataset writes a sample with the key talk.v2 without complaint and reads it back as talk,
# with fields v2.npy and v2.txt; a file name without a dot is left out.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv --without-pip "$dir/venv"
python3 -m pip --python "$dir/venv" install -q --no-compile --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PY'
import io
import tarfile

import numpy as np
import webdataset


def read(path):
    found = webdataset.WebDataset(path, shardshuffle=False)
    return [{k: v for k, v in sample.items() if k not in ("__url__", "__local_path__")} for sample in found]


with webdataset.TarWriter("a.tar") as writer:
    writer.write({"__key__": "talk.v2", "npy": np.zeros(2), "txt": "hello"})
(sample,) = read("a.tar")
print("webdataset", webdataset.__version__)
print("wrote key talk.v2 with npy and txt; read key", sample["__key__"], "with", sorted(sample)[1:])
with tarfile.open("b.tar", "w") as tar:
    for name in ("README", "a.txt"):
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
keys = [sample["__key__"] for sample in read("b.tar")]
print("of README and a.txt it reads the keys", keys)
assert sorted(sample) == ["__key__", "v2.npy", "v2.txt"], "the behavior has changed"
assert sample["__key__"] == "talk" and keys == ["a"], "the behavior has changed"
PY
