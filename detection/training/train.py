"""Training a detector on a data set, from pictures to a model folder."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ...data.boxes import area
from ...data.categories import Category
from ...data.dataset import Dataset, Sample
from ...data.images import read_image
from ...proposals.cache import ProposalCache
from ...proposals.multibox import MultiBox
from ..engines.choice import resolve_device
from ..engines.quantisation import measure_input_ranges
from ..model_files import Model, RegionSettings, load_model, save_model
from ..networks.backbones import Backbone, with_classes
from ..warping.warp import warp_regions
from .box_regression import train_box_regressor
from .cascade import fit_cascade
from .dataset_checks import OutsidePolicy, check_dataset
from .errors import TrainingError
from .finetune import FineTuneSettings, discard_features, fine_tune, frozen_blocks
from .initial_network import initial_multibox, initial_network
from .multibox import MultiBoxSettings, check_multibox, train_multibox
from .validation import measure_detector
from .windows import Windows, collect_windows

# Mini-batches show one positive window to three backgrounds, pictures about one to thirty: untouched, the classifier
# finds objects everywhere. log(30 / 3) = 2.3 added to the background's logit would move its prior all the way (Saerens
# et al., Neural Computation 2002); this much of it leaves clear single objects above a score of 0.5. On 61 pictures of
# val, boxes not yet voted, mean AP over six classes was 0.539 without, 0.585 with this, 0.589 with 2.4.
BACKGROUND_SHIFT = 1.5

# Windows on which the inputs of convolutions are measured, for running in 8 bits.
_MEASURED = 64

# Stage, units done, units in all, a word on the state ("" or "loss 0.412").
Report = Callable[[str, int, int, str], None]


def train_detector(
    dataset: Dataset,
    out: str | Path,
    *,
    init: str = "default",
    members: int = 1,
    settings: FineTuneSettings | None = None,
    regions: RegionSettings | None = None,
    multibox: MultiBoxSettings | None = None,
    regression: bool = True,
    validation: Dataset | None = None,
    measured: int = 100,
    device: str = "auto",
    outside: OutsidePolicy = "clip",
    warn: Callable[[str], None] = lambda warning: None,
    report: Report = lambda stage, done, total, note: None,
) -> Model:
    """Fine-tune networks on `dataset` and write the detector to the model folder `out`.

    The steps: proposals of all pictures; the members; the network that proposes; the box regression; the cascade's
    threshold; and the figures for the card. The classes are those of the data set that have an object in it. Called
    again with the same arguments after an interruption it goes on where it was, and gives the same model; a step that
    is finished is not repeated, and called with more members it trains those that are missing. Proposals, a checkpoint
    of each network and, while it runs, features of frozen blocks lie in `out`/training, which can be deleted
    afterwards.

    Args:
        init: see `initial_network`.
        members: networks of the ensemble; what they share and where they differ is said in `finetune`. The paper's
            entry has six. 0 keeps those of the model folder `init` as they are, with their classes and regions, and
            goes on with the rest.
        settings: the recipe; None for the defaults.
        regions: how regions are proposed and warped; None for the defaults.
        multibox: the recipe of the network that proposes regions beside selective search; None to keep that of `init`,
            or do without where it has none.
        regression: whether to fit a box regression, which the model gets if it helps. Networks that are kept keep
            theirs where none is fitted.
        validation: annotated pictures to measure the detector on, for its card; None for none. Pictures that it is
            trained on are left out.
        measured: at most so many of them.
        outside: what becomes of boxes that reach beyond their picture.
        warn: called with what `check_dataset` finds that is no error, and if the detector cannot be measured.
        report: called as the work goes on.

    Raises:
        TrainingError: there is nothing to train on, pictures or annotations are missing or malformed, the disk has no
            room for what frozen blocks give, the loss is no number, or a training begun in `out` was another one.
        AnnotationError, ImageError, ModelError: a file that is needed cannot be used.
    """
    dataset, counts = check_dataset(dataset, outside, warn, learns_classes=members > 0)
    if validation is not None:
        validation = validation.without(dataset)
        if not len(validation) and measured:
            warn(f"{validation.name}: all of its pictures are trained on, so the detector is not measured")
    settings = settings or FineTuneSettings()
    folder = Path(out) / "training"
    if Path(init).resolve() == Path(out).resolve():
        raise TrainingError(f"{out} is what training starts from: write the new model to another --out")
    torch.manual_seed(settings.seed)
    network = initial_network(init)
    resolve_device(device)  # what is wrong with the settings is said before anything is made
    frozen_blocks(network, settings.freeze_below)
    kept_multibox, about_multibox = initial_multibox(init) if multibox is None else (None, {})
    if multibox is not None and not folder.exists():  # a training gone on with has files there that will go
        Path(out).mkdir(parents=True, exist_ok=True)
        with _multibox_errors("Nothing is trained yet"):
            check_multibox(network, multibox, dataset, Path(out))
    folder.mkdir(parents=True, exist_ok=True)
    kept_regressor, windows = None, None
    if members:
        categories = tuple(category for category in dataset.categories if counts.get(category.id))
        regions = regions or RegionSettings()
        windows = _windows(dataset, categories, regions, folder, settings.seed, report)
        networks = _fine_tuned(
            network, members, dataset, windows, regions, len(categories), settings, folder, device, report
        )
        card: dict[str, Any] = {
            "data": dataset.name,
            "pictures": len(dataset),
            "objects": {category.name: counts[category.id] for category in categories},
            "init": Path(init).name,
            "members": members,
            "settings": asdict(settings),
        }
    else:
        start = load_model(init)
        networks, categories, regions, kept_regressor = start.members, start.categories, start.regions, start.regressor
        if regression:
            known = {category.name for category in categories}
            others = [one.name for one in dataset.categories if counts.get(one.id) and one.name not in known]
            if others:
                warn(f"{init} does not know some classes, whose objects are left out: {', '.join(others)}")
            of_known = _with_known_classes(dataset, categories)
            windows = _windows(of_known, categories, regions, folder, settings.seed, report)
        card = {name: value for name, value in start.card.items() if name not in ("multibox", "evaluation")}
    with TemporaryDirectory(dir=folder) as stored:  # the rest is fitted to the weights as they are stored
        save_model(Model(networks, categories, regions, card), stored)
        model = load_model(stored)
    if not (Path(out) / "model.json").exists():  # of use already, should a later step fail
        save_model(model, out)
    if multibox is None:
        model.multibox = kept_multibox
    else:
        model.multibox = _trained_multibox(model.members[0], dataset, multibox, folder, device, report)
        about_multibox = {"data": dataset.name, "pictures": len(dataset), "settings": asdict(multibox)}
    if about_multibox:
        card["multibox"] = about_multibox
    model.regressor = kept_regressor
    if regression and windows is not None:
        fitted = train_box_regressor(
            model.members[0],
            dataset,
            windows,
            regions,
            len(categories),
            folder,
            seed=settings.seed,
            device=device,
            report=lambda done, total: report("box regression", done, total, ""),
        )
        model.regressor = kept_regressor if fitted is None else fitted
    if len(model.members) > 1:
        model.cascade = fit_cascade(
            model,
            dataset,
            folder,
            seed=settings.seed,
            device=device,
            report=lambda done, total: report("cascade", done, total, ""),
        )
    model.card = card
    save_model(model, out)
    if validation is not None and len(validation) and measured:
        try:
            card["evaluation"] = measure_detector(
                Path(out),
                _with_known_classes(validation, categories),
                folder,
                pictures=measured,
                seed=settings.seed,
                device=device,
                report=lambda done, total: report("evaluation", done, total, ""),
            )
        except TrainingError as error:
            warn(f"the detector could not be measured: {error}")
        save_model(model, out)
    return load_model(out)


def _windows(
    dataset: Dataset,
    categories: tuple[Category, ...],
    regions: RegionSettings,
    folder: Path,
    seed: int,
    report: Report,
) -> Windows:
    """Windows on all pictures, labelled by the outputs of a network that knows `categories`."""

    def progress(indices: Iterable[int]) -> Iterator[int]:
        for done, index in enumerate(indices):
            yield index
            report("proposals", done + 1, len(dataset), "")

    with ProposalCache(
        folder / "proposals.sqlite",
        superpixel_scale=regions.superpixel_scale,
        min_side=regions.min_side,
        connectivity=regions.connectivity,
    ) as cache:
        windows = collect_windows(dataset, lambda sample: cache(sample.path), seed, progress)
    columns = {0: 0, **{category.id: column for column, category in enumerate(categories, 1)}}
    labels = np.array([columns[label] for label in windows.labels.tolist()], np.int64)
    return Windows(windows.images, windows.boxes, labels)


def _fine_tuned(
    network: Backbone,
    members: int,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    classes: int,
    settings: FineTuneSettings,
    folder: Path,
    device: str,
    report: Report,
) -> list[Backbone]:
    """The members of an ensemble, each fine-tuned from `network` with a new classifier."""

    def report_step(stage: str, step: int, loss: float) -> None:
        report(stage, step, settings.iterations, f"loss {loss:.3f}")

    torch.manual_seed(settings.seed)
    with_classes(network, classes + 1)
    crops = _some_crops(dataset, windows, regions, settings.seed)
    trained = []
    for number in range(1, members + 1):
        member = copy.deepcopy(network)
        stage = "training" if members == 1 else f"training member {number} of {members}"
        fine_tune(
            member,
            dataset,
            windows,
            regions,
            settings,
            folder,
            member=number,
            device=device,
            report_features=lambda done, total: report("frozen blocks", done, total, ""),
            report_step=partial(report_step, stage),
        )
        with torch.no_grad():
            member.classifier.bias[0] += BACKGROUND_SHIFT
        member.input_ranges = measure_input_ranges(member, crops)
        trained.append(member)
    discard_features(folder)
    return trained


def _trained_multibox(
    first: Backbone, dataset: Dataset, settings: MultiBoxSettings, folder: Path, device: str, report: Report
) -> MultiBox:
    def report_step(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        report(f"MultiBox, {stage}", done, total, f"loss {figures['loss']:.3f}" if "loss" in figures else "")

    with _multibox_errors("The networks are trained; what comes after MultiBox is not"):
        return train_multibox(copy.deepcopy(first), dataset, settings, folder, device=device, report=report_step)


@contextmanager
def _multibox_errors(state: str) -> Iterator[None]:
    """Say that it was MultiBox's training that failed, and what can be done."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(
            f"MultiBox: {error}\n{state}; --multibox-iterations 0 leaves MultiBox out, and detect-train-multibox, "
            "which has more options, can add it"
        ) from error


def _with_known_classes(dataset: Dataset, categories: tuple[Category, ...]) -> Dataset:
    """`dataset` without the objects of other classes, which nobody trained the detector to find.

    Classes are known by their names: layouts that have no list number theirs anew in each split.
    """
    ids = {category.name: category.id for category in categories}
    columns = {category.id: ids[category.name] for category in dataset.categories if category.name in ids}
    return Dataset(dataset.name, categories, range(len(dataset)), partial(_known_at, dataset, columns))


def _known_at(dataset: Dataset, ids: dict[int, int], index: int) -> Sample:
    sample = dataset[index]
    known = np.isin(sample.labels, list(ids)) & (area(sample.boxes) > 0)
    labels = np.array([ids[label] for label in sample.labels[known].tolist()], np.int64)
    return replace(sample, boxes=sample.boxes[known], labels=labels, difficult=sample.difficult[known], outside=None)


def _some_crops(dataset: Dataset, windows: Windows, regions: RegionSettings, seed: int) -> np.ndarray:
    """Some of the windows that the network is trained on, uint8 RGB [N, 224, 224, 3], N at most `_MEASURED`."""
    rng = np.random.default_rng([seed, 4])
    rows = rng.choice(len(windows), min(_MEASURED, len(windows)), replace=False)
    crops = [
        warp_regions(
            read_image(dataset[int(windows.images[row])].path),
            windows.boxes[row : row + 1],
            padding=regions.padding,
            mode=regions.warp_mode,
        )
        for row in rows
    ]
    return np.concatenate(crops)
