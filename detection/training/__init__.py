"""Fine-tuning GoogLeNet into a region classifier."""
