"""Evaluation: ILSVRC, VOC and COCO mAP, error analysis, intervals and the report. Nothing here imports torch."""
