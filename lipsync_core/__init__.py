"""Lip sync: make any face speak any speech."""
