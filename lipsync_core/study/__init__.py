"""Run a blind test in which people judge clips of several methods side by side (paper, section 5).

``create`` builds a folder, ``server`` lets people vote in it, and only ``report`` reveals which
method was which. The folder holds ``study.sqlite`` (plan and votes), ``media/`` (the clips under
random names) and ``links.csv`` (the raters' secret links).
"""
