"""Evaluation as in the paper: pairs, dubs and their scores, tables, and the accuracy of experts."""
