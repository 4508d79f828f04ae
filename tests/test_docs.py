"""The words of the manual: every command parses, every option exists, every Python block runs, every link has a target.

README.md, CONTRIBUTING.md and docs/*.md are read as Markdown. A block that is indented by four spaces, or fenced
without a language, holds shell commands; a block fenced with ```python holds Python.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import inception_rcnn
from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model

from .tools.test_help import COMMANDS, app_of
