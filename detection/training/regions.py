"""The regions of training pictures, computed once and stored: all proposals, and those that the screen keeps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...data.images import read_image
from ...proposals.cache import ProposalCache, RegionCache
from ...proposals.combine import combine
from ...proposals.multibox import MultiBox
from ...proposals.proposals import Proposals
from ...proposals.screen import Screen
from ..engines.multibox import MultiBoxEngine
from ..model_files import RegionSettings
from .keys import result_key

# Returns the regions of a picture file.
Propose = Callable[[Path], Proposals]


@contextmanager
def all_regions(
    file: Path, regions: RegionSettings, multibox: MultiBox | None, device: str = "auto"
) -> Iterator[Propose]:
    """The proposals of selective search and, if there is a MultiBox network, of MultiBox.

    Args:
        file: the SQLite file that stores them.
        regions: settings of selective search.
        multibox: the MultiBox network; None for selective search alone.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    with ProposalCache(
        file,
        superpixel_scale=regions.superpixel_scale,
        min_side=regions.min_side,
        connectivity=regions.connectivity,
    ) as selective:
        if multibox is None:
            yield selective
            return
        engine = MultiBoxEngine(multibox, device=device)
        key = result_key(regions=regions, multibox=multibox)
        with RegionCache(file, lambda path: combine(selective(path), engine(read_image(path))), key) as cache:
            yield cache


@contextmanager
def screened_regions(
    file: Path, regions: RegionSettings, multibox: MultiBox, screen: Screen, device: str = "auto"
) -> Iterator[Propose]:
    """The regions that the screen keeps with its present thresholds, without `Proposals.classes`.

    Training does not use the classes, and the cache does not store them. The arguments are those of `all_regions`.
    """
    engine = MultiBoxEngine(multibox, screen, device=device)
    with all_regions(file, regions, multibox, device) as everything:

        def propose(path: Path) -> Proposals:
            image = read_image(path)
            feature_map = engine.look(image).feature_map
            assert feature_map is not None
            height, width = image.shape[:2]
            return replace(screen.keep(everything(path), feature_map, width, height), classes=None)

        key = result_key(regions=regions, multibox=multibox, screen=screen, thresholds=screen.thresholds)
        with RegionCache(file, propose, key) as cache:
            yield cache
