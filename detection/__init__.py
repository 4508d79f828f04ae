"""The detector: networks, warping, engines, evaluation, training and model files."""
