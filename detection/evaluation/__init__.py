"""Evaluation: mAP by the rules of ILSVRC, VOC and COCO, error analysis, confidence intervals, the report. No torch."""
