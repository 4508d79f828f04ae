"""mAP by the rules of ILSVRC, VOC and COCO, error analysis, confidence intervals, report. Runs without torch."""
