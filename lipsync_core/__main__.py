"""`python -m lipsync_core` is `lipsync`."""

from .cli import main

main()
