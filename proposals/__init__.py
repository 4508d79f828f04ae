"""Region proposals: selective search, MultiBox, their combination and the analysis of their recall."""
