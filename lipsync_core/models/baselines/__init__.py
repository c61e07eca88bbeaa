"""Earlier talking-face models, trained as baselines for comparison."""
