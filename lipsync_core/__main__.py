"""`python -m lipsync_core` is `lipsync`."""

from .cli.main import main

main()
