"""Training: classifiers, region classifiers, MultiBox networks, and the whole detector."""
