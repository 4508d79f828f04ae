"""Draws detections on a picture: a frame for each detection, and a label with class name and score."""

from __future__ import annotations

import colorsys
import importlib.util
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; half-open

# Line width and letter height as shares of the picture's diagonal, and their ranges in pixels. The lower limits keep
# labels readable on thumbnails; the upper limits keep labels from covering large pictures.
LINE_SHARE, LINE_RANGE = 1 / 280, (1, 14)
TEXT_SHARE, TEXT_RANGE = 1 / 42, (11, 80)
# Pillow's built-in font has only ASCII letters. A name with other letters is written in the first of these fonts that
# is installed and has all its letters.
FONT_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
)
COLOUR_SEED = 251867  # found by trial: common DET classes that are seen together have hues that are far apart
FAR_APART = 80.0  # degrees between hues that are easy to tell apart, see `_palette`
LONGEST_NAME = 200  # letters of a class name on a label
RIM_COLOUR: Colour = (20, 20, 20)  # a dark rim separates a frame from a background of the same colour


def draw_detections(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels_text: Sequence[str],
    scores: NDArray[np.float32] | Sequence[float],
    classes: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Returns a copy of the picture with a frame and a label ("dog 0.93") for every detection.

    Line width and letter height grow with the picture. The classes in a picture have hues that are far apart, see
    `distinct_colours`. Detections with higher scores are drawn on top of the others. A label lies inside the picture:
    above, inside or below its box, where it covers other labels least. A label that is wider than the picture is
    shortened. It is left out if not even the score fits.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes: [N, 4] as (x1, y1, x2, y2), 0-based continuous; clipped to the picture.
        labels_text: N names for the labels: class names, or finer names ("dog: Samoyed").
        scores: N probabilities.
        classes: N class names, which decide the colours; by default `labels_text`.

    Returns:
        uint8 RGB [H, W, 3], a new array.

    Raises:
        ValueError: the numbers of boxes, names and scores differ.
    """
    regions = np.asarray(boxes, np.float64).reshape(-1, 4)
    classes = labels_text if classes is None else classes
    if not len(regions) == len(labels_text) == len(scores) == len(classes):
        raise ValueError(
            f"expected one name and one score for each box, "
            f"got {len(regions)} boxes, {len(labels_text)} names, {len(scores)} scores"
            + ("" if len(classes) == len(labels_text) else f", {len(classes)} classes")
        )
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    diagonal = float(np.hypot(*picture.size))
    line = round(min(max(diagonal * LINE_SHARE, LINE_RANGE[0]), LINE_RANGE[1]))
    letter_height = round(min(max(diagonal * TEXT_SHARE, TEXT_RANGE[0]), TEXT_RANGE[1]))
    colours = distinct_colours([classes])
    names_and_fonts = [_writable_name(name, letter_height) for name in labels_text]

    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    frames = {int(n): _pixels_of_box(regions[n], *picture.size) for n in order}
    for n in reversed(order):
        _draw_frame(draw, frames[int(n)], colours[classes[n]], line)
    placed: list[Rectangle] = []
    texts: list[str] = []
    for n in order:
        name, font = names_and_fonts[n]
        text, place = _place_label(name, float(scores[n]), frames[int(n)], picture.size, font, placed)
        texts.append(text)
        placed.append(place)
    for n, text, place in reversed(list(zip(order, texts, placed, strict=True))):
        if text:
            _draw_label(draw, text, place, colours[classes[n]], names_and_fonts[n][1])
    return np.array(picture)


def class_colour(name: str) -> Colour:
    """Returns the RGB colour of a class: one of 24 hues in one of three tones.

    The colour depends only on the name, so it is the same in every run. The class has this colour in each picture in
    which no other class has a similar colour.
    """
    return _palette()[0][_own_place(name)]


def distinct_colours(groups: Iterable[Collection[str]]) -> dict[str, Colour]:
    """Returns colours of classes. Classes that are seen together have hues that are far apart, as far as there is room.

    A class has its own colour, see `class_colour`, unless a class that is more frequent and seen together with it has a
    similar colour.

    Args:
        groups: the names of the classes in each picture. A name may be repeated, which makes it more frequent.
    """
    frequency: Counter[str] = Counter()
    together: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group in groups:
        frequency.update(group)
        different = set(group)
        for name in different:
            together[name].update(different)
    colours, distances = _palette()
    places: dict[str, int] = {}
    for name in sorted(together, key=lambda name: (-frequency[name], name)):
        neighbours = {places[other]: count for other, count in together[name].items() if other in places}
        nearness = np.maximum(1 - distances[list(neighbours)] / FAR_APART, 0) ** 2  # [neighbours, colours]
        costs = np.array(list(neighbours.values()), np.float64) @ nearness
        best = np.flatnonzero(costs <= costs.min() + 1e-9)
        places[name] = int(best[np.argmin(distances[_own_place(name)][best])])
    return {name: colours[place] for name, place in places.items()}


def ink_on(colour: Colour) -> Colour:
    """Returns black or white, whichever can be read on this colour."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else (255, 255, 255)


def _own_place(name: str) -> int:
    return zlib.crc32(name.encode(errors="surrogatepass"), COLOUR_SEED) % 72


@lru_cache(maxsize=1)
def _palette() -> tuple[list[Colour], NDArray[np.float64]]:
    """Returns 24 hues in three tones, and the distance of each two of these 72 colours.

    The distance is the angle between the hues in degrees, on the colour wheel (HLS) or in CIE Lab, whichever is
    smaller: some greens are far apart only on the wheel, some blues only in Lab. Tones of a hue differ by up to 20
    degrees.
    """
    colours: list[Colour] = []
    for place in range(72):
        hue, tone = place % 24 / 24, place // 24
        red, green, blue = colorsys.hls_to_rgb(hue, 0.5, 1)
        lift = max(0.3 - (0.299 * red + 0.587 * green + 0.114 * blue), 0)  # pure blue is too dark for dark pictures
        lightness, saturation = (0.45 + lift, 0.60 + 0.7 * lift, 0.74 + 0.4 * lift)[tone], (0.95, 0.90, 0.85)[tone]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    lab = cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    angles = np.stack([np.arange(72) % 24 * 15.0, np.degrees(np.arctan2(lab[:, 2], lab[:, 1]))])  # [2, 72]
    turns = np.abs(angles[:, :, None] - angles[:, None])
    contrast = np.abs(lab[:, None, 0] - lab[None, :, 0])
    return colours, np.hypot(np.minimum(turns, 360 - turns).min(axis=0), np.minimum(contrast / 2, 20))


@lru_cache(maxsize=1024)
def _writable_name(name: str, height: int) -> tuple[str, Font]:
    """Returns the name, with only letters that some font has, and that font.

    If no installed font has all letters of the name, accents are removed and other non-ASCII letters become "?". Line
    breaks and control characters become spaces. A long name is cut.
    """
    if len(name) > LONGEST_NAME:
        name = name[:LONGEST_NAME] + ".."
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    builtin = _builtin_font(height)
    if name.isascii():
        return name, builtin
    for font in _installed_fonts(height):
        if _has_letters(font, name):
            return name, font
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode(), builtin


@lru_cache(maxsize=16)
def _builtin_font(height: int) -> Font:
    return ImageFont.load_default(height)


@lru_cache(maxsize=16)
def _installed_fonts(height: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    files = list(FONT_FILES)
    matplotlib = importlib.util.find_spec("matplotlib")  # its folder contains DejaVu Sans; an import would be slow
    if matplotlib and matplotlib.origin:
        files.append(str(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"))
    fonts = []
    for file in files:
        try:
            fonts.append(ImageFont.truetype(file, height))  # Pillow searches the system's font folders
        except OSError:
            continue
    return tuple(fonts)


def _has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = font.getmask("\U0010ffff")  # U+10FFFF is no character, so the font draws its symbol for missing letters
    masks = (font.getmask(letter) for letter in text if not letter.isspace())
    return all(mask.size != missing.size or bytes(mask) != bytes(missing) for mask in masks)


def _pixels_of_box(box: NDArray[np.float64], width: int, height: int) -> Rectangle:
    """Returns the pixels of the box inside the picture; at least one pixel."""
    finite = np.nan_to_num(box, nan=0.0)
    left, right = (round(float(v)) for v in finite[[0, 2]].clip(0, width))
    top, bottom = (round(float(v)) for v in finite[[1, 3]].clip(0, height))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _draw_frame(draw: ImageDraw.ImageDraw, frame: Rectangle, colour: Colour, line: int) -> None:
    left, top, right, bottom = frame[0], frame[1], frame[2] - 1, frame[3] - 1  # Pillow's ends are inclusive
    rim = 1 if line < 6 else 2
    draw.rectangle((left, top, right, bottom), outline=RIM_COLOUR, width=line + 2 * rim if line > 1 else 1)
    if line == 1:
        draw.rectangle((left, top, right, bottom), outline=colour)
    elif right - left > 2 * rim and bottom - top > 2 * rim:
        draw.rectangle((left + rim, top + rim, right - rim, bottom - rim), outline=colour, width=line)


def _place_label(
    name: str,
    score: float,
    frame: Rectangle,
    size: tuple[int, int],
    font: Font,
    taken: Sequence[Rectangle],
) -> tuple[str, Rectangle]:
    """Returns the text of a label and the rectangle of its background, inside the picture.

    Args:
        name: the class name.
        score: the score of the detection.
        frame: the pixels of its box.
        size: width and height of the picture.
        font: the font of the label.
        taken: the rectangles of the labels that are already placed.

    Returns:
        The text is "" if not even the score fits into the picture.
    """
    width, height = size
    text = f"{name} {score:.2f}"
    wide, high = _label_size(text, font)
    while wide > width and name:
        name = name[:-1]
        text = f"{name}.. {score:.2f}" if name else f"{score:.2f}"
        wide, high = _label_size(text, font)
    if wide > width or high > height:
        return "", (0, 0, 0, 0)
    left, top, right, bottom = frame
    places = (
        (left, top - high),
        (left, top),
        (right - wide, top - high),
        (right - wide, top),
        (left, bottom - high),
        (left, bottom),
        (right - wide, bottom - high),
        (right - wide, bottom),
    )
    candidates: list[tuple[int, int, int, Rectangle]] = []
    for x, y in places:
        x_in, y_in = min(max(x, 0), width - wide), min(max(y, 0), height - high)
        place = (x_in, y_in, x_in + wide, y_in + high)
        covered = sum(_shared_pixels(place, other) for other in taken)
        pushed = abs(y - y_in)  # places inside the picture are preferred to places that must be moved into it
        candidates.append((covered, pushed, len(candidates), place))
    return text, min(candidates)[-1]


def _label_size(text: str, font: Font) -> tuple[int, int]:
    """Returns width and height of a label in pixels. The height is the same for all texts of a font."""
    margin = _margin(font)
    _, top, _, bottom = font.getbbox("Åg|")
    return int(np.ceil(font.getlength(text))) + 2 * margin, int(np.ceil(bottom - top)) + margin


def _margin(font: Font) -> int:
    return max(2, round(getattr(font, "size", 10) / 4))


def _shared_pixels(a: Rectangle, b: Rectangle) -> int:
    """Returns the number of pixels that two rectangles share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _draw_label(
    draw: ImageDraw.ImageDraw,
    text: str,
    place: Rectangle,
    colour: Colour,
    font: Font,
) -> None:
    left, top, right, bottom = place
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    margin = _margin(font)
    above = font.getbbox("Åg|")[1]
    draw.text((left + margin, top + margin // 2 - above), text, fill=ink_on(colour), font=font)
