"""Evaluation as in the paper: lists of pairs, generation and scores, tables beside its rows,
accuracy of experts."""
