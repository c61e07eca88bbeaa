"""Runs a recipe's script with thin networks: python -m helpers.thin_script train.RECIPE ARGUMENTS."""

import runpy
import sys

from helpers.recipes import thin
from lipsync_core.models import quality_discriminator, wav2lip

# the script imports them from there
wav2lip.MINI = thin(wav2lip.MINI)
quality_discriminator.PATCH_CRITIC = thin(quality_discriminator.PATCH_CRITIC)
quality_discriminator.WAV2LIP_DISCRIMINATOR = thin(quality_discriminator.WAV2LIP_DISCRIMINATOR)

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
