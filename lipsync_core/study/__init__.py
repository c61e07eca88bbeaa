"""A blind listening-and-looking test: people judge clips of several methods side by side (paper,
section 5: 14 raters).

``create`` builds a folder, ``server`` lets people vote in it, ``report`` alone tells which method
was which. The folder: ``study.sqlite`` (plan and votes), ``media/`` (the clips under random names),
``links.csv`` (the raters' secret links).
"""
