"""GoogLeNet, warping, engines, the detector, training and model files."""
