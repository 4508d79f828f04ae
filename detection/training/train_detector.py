"""Training a detector on a data set, from pictures to a model folder."""

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.boxes import area
from ...data.categories import Category
from ...data.dataset import Dataset, Sample
from ...data.images import read_image
from ...proposals.multibox import MultiBox
from ...proposals.screen import Screen
from ...runtime.atomic_write import atomic_write, temporary_folder
from ...runtime.duration import duration
from ..engines.choice import resolve_device
from ..engines.quantisation import measure_input_ranges
from ..model_files import Model, RegionSettings, load_model, model_digest, save_model
from ..networks.backbones import Backbone, with_classes
from ..regression import BoxRegressor
from ..warping.warp import warp_regions
from .box_regression import train_box_regressor
from .cascade import fit_cascade
from .dataset_checks import OutsidePolicy, check_dataset
from .errors import TrainingError
from .finetune import FineTuneSettings, discard_features, fine_tune, frozen_blocks
from .initial_network import initial_multibox, initial_network, initial_screen
from .keys import pictures_key, result_key
from .measure_detector import measure_detector
from .multibox import MultiBoxSettings, check_multibox, train_multibox
from .plan import measure_speed, plan_stages, total_seconds
from .progress import Report, Say, no_report, no_words
from .regions import all_regions, screened_regions
from .screen import ScreenSettings, train_screen
from .screen_thresholds import FittedThresholds, fit_thresholds
from .teacher import Lesson, Teacher, make_lesson, with_teachers_classifier
from .windows import Windows, collect_windows

# A batch has three backgrounds to each positive window, a picture about thirty. Without a correction, the classifier
# therefore finds objects everywhere. Adding log(30 / 3) = 2.3 to the background's logit corrects its prior completely
# (Saerens et al., Neural Computation 2002). This smaller shift keeps clear single objects above a score of 0.5. On 61
# pictures of val, before boxes were voted, the mean AP of six classes was 0.539 without a shift, 0.585 with this shift,
# and 0.589 with a shift of 2.4. A detector with a screen needs no shift, because its scores are calibrated.
BACKGROUND_SHIFT = 1.5

# One training picture in so many, and at most so many, is not trained on but serves to fit the screen's thresholds and
# the calibration: enough for a percentage, few enough that the training does not miss them.
_ONE_UNSEEN_IN, _MOST_UNSEEN = 15, 80

# Number of windows on which the inputs of convolutions are measured, for engines that compute in 8 bits.
_MEASURED_WINDOWS = 64


@dataclass(frozen=True)
class _Run:
    """What the steps of `train_detector` share: the data set, the folder for intermediate files, and how to run."""

    dataset: Dataset
    folder: Path
    seed: int
    device: str
    report: Report
    say: Say


def train_detector(
    dataset: Dataset,
    out: str | Path,
    *,
    init: str = "default",
    members: int = 1,
    teacher: Teacher | None = None,
    settings: FineTuneSettings | None = None,
    regions: RegionSettings | None = None,
    multibox: MultiBoxSettings | None = None,
    screen: ScreenSettings | None = None,
    regression: bool = True,
    validation: Dataset | None = None,
    measured: int = 100,
    device: str = "auto",
    outside: OutsidePolicy = "clip",
    warn: Callable[[str], None] = lambda warning: None,
    report: Report = no_report,
    say: Say = no_words,
) -> Model:
    """Train a detector on `dataset` and write it to the model folder `out`.

    The detector knows the classes of which the data set has objects, and the classes of the teacher. If the call is
    repeated with the same arguments after an interruption, it resumes and gives the same model; finished steps are not
    repeated. If it is repeated with more members, it trains the missing members. `out`/training contains the proposals,
    the checkpoint of each network and, during the training, the features of frozen blocks; it can be deleted
    afterwards.

    Args:
        dataset: the training pictures.
        out: the model folder to write.
        init: the initial network, see `initial_network`.
        members: number of networks in the ensemble, six in the paper's entry; `finetune` says how they differ. 0 keeps
            the members of the model `init`, with their classes and region settings, and does the other steps.
        teacher: a classifier that knows classes of which the data set has no boxes, see `teacher`; None for no teacher.
        settings: the recipe of fine-tuning; None for the defaults.
        regions: how regions are proposed and warped; None for the defaults.
        multibox: the recipe of MultiBox; None keeps the MultiBox network of `init`, if it has one.
        screen: the recipe of the screen, which needs a MultiBox network; None trains no screen. Members that are kept
            then keep the screen of `init`, if they also keep its MultiBox network.
        regression: whether to fit a box regression. The model gets it if it helps; members that are kept otherwise keep
            the box regression of `init`.
        validation: annotated pictures on which the detector is measured for its card; None for no measurement.
            Training pictures among them are left out.
        measured: largest number of pictures to measure on.
        device: "auto", "cpu", "cuda" or "cuda:N".
        outside: what to do with boxes that reach beyond their picture.
        warn: called with the warnings of `check_dataset`, and if the detector cannot be measured.
        report: called with the progress of each step.
        say: called with the plan before the first stage, and with the outcome of each stage.

    Returns:
        The detector, as read from `out`.

    Raises:
        TrainingError: there is nothing to train on, pictures or annotations are missing or malformed, the disk has no
            room for the features of frozen blocks, a loss is not finite, or `out` has a training with other data,
            weights or settings.
        AnnotationError, ImageError, ModelError: a file cannot be used.
    """
    settings, out = settings or FineTuneSettings(), Path(out)
    network = _initial_network(init, out, settings, device)
    dataset, counts = check_dataset(dataset, outside, warn, learns_classes=members > 0)
    validation = _untrained_pictures(validation, dataset, measured, warn)
    wants_screen = screen is not None
    if multibox is None and initial_multibox(init)[0] is None:
        screen = None
    dataset, unseen = _seen_and_unseen(dataset, screen, settings.seed)
    if len(unseen):
        counts = Counter(label for sample in dataset for label in sample.labels[~sample.difficult].tolist())
    run = _Run(dataset, out / "training", settings.seed, device, report, say)
    kept = None if members else load_model(init)
    if kept is None:
        regions = regions or RegionSettings()
        taught: set[int | None] = set() if teacher is None else {one.category for one in teacher.outputs}
        categories = tuple(one for one in dataset.categories if counts.get(one.id) or one.id in taught)
        card = _card(dataset, categories, counts, taught, init, members, settings)
    else:
        regions, categories, card = kept.regions, kept.categories, _card_of_members(kept)
        _warn_of_unknown_classes(dataset, kept, init, counts, warn)
    if multibox is not None:
        _check_multibox(run, network, multibox, out)
    if say is not no_words:
        _say_plan(run, network, init, members, settings, multibox, screen, regression, validation, measured, counts)
    run.folder.mkdir(parents=True, exist_ok=True)
    proposer, multibox_card = _trained_or_kept_multibox(run, network, multibox, init)
    say(_multibox_outcome(proposer, multibox, init))
    new_screen = None
    if screen is not None and proposer is not None:
        start = initial_screen(init) if multibox is None else None
        learned = _with_known_classes(dataset, categories)
        new_screen = _trained_screen(run, proposer, learned, categories, regions, screen, start)
    windows: Windows | None = None
    if members or regression:
        annotated = dataset if kept is None else _with_known_classes(dataset, categories)
        windows = _collect_windows(run, annotated, categories, regions, proposer, new_screen)
    if kept is None:
        assert windows is not None
        lesson = make_lesson(teacher, dataset, categories, set(counts))
        shift = 0.0 if len(unseen) else BACKGROUND_SHIFT
        networks = _fine_tuned_members(
            run, network, members, windows, regions, len(categories), lesson, settings, shift
        )
        subclasses = () if lesson is None else lesson.subclasses
        say(f"networks: {members} trained in {settings.iterations:,} steps" + (" each" if members > 1 else ""))
    else:
        networks, subclasses = kept.members, kept.subclasses
        say(f"networks: {len(networks)} kept from {init}")
    model = Model(networks, categories, regions, card, multibox=proposer, screen=new_screen, subclasses=subclasses)
    model = _as_stored(model, run.folder)
    if multibox_card:
        model.card["multibox"] = multibox_card
    if not (out / "model.json").exists():  # The model can be used even if a later step fails.
        save_model(model, out)
    model.regressor = _fitted_regressor(run, model, windows) if regression and windows is not None else None
    if model.regressor is None and kept is not None:
        model.regressor = kept.regressor
    say(_regression_outcome(model, regression, kept, init))
    # The few regions that a screen keeps are worth all networks: of 130 pictures that were not trained on, a cascade
    # after the screen lowered the mean AP from 0.544 to 0.463.
    if len(model.members) > 1 and model.screen is None:
        model.cascade = fit_cascade(model, dataset, run.folder, seed=run.seed, device=device, report=report)
        say(f"cascade: the first network decides with the threshold {model.cascade:.3f} what the others score")
    if screen is not None and model.screen is not None:
        model.card["screen"] = {"data": dataset.name, "pictures": len(dataset), "settings": asdict(screen)}
        if len(unseen):
            fitted = _fitted_thresholds(run, model, _with_known_classes(unseen, categories))
            model.screen.thresholds, model.calibration = fitted.thresholds, fitted.calibration
            model.card["screen"]["thresholds"] = fitted.figures
        say(_screen_outcome(model.card["screen"].get("thresholds")))
    elif kept is not None and kept.screen is not None and multibox is None:
        model.screen, model.calibration = kept.screen, kept.calibration
        model.card["screen"] = kept.card.get("screen", {})
        say(f"screen: kept from {init}")
    else:
        say("screen: none, it needs a MultiBox network" if wants_screen else "screen: none")
    save_model(model, out)
    if validation is not None:
        _add_measurement(run, model, out, validation, measured, warn)
    return load_model(out)


def _say_plan(
    run: _Run,
    network: Backbone,
    init: str,
    members: int,
    settings: FineTuneSettings,
    multibox: MultiBoxSettings | None,
    screen: ScreenSettings | None,
    regression: bool,
    validation: Dataset | None,
    measured: int,
    counts: dict[int, int],
) -> None:
    """Say what the training will do, and about how long it takes."""
    stages = plan_stages(
        measure_speed(network, settings.freeze_below, run.device),
        pictures=len(run.dataset),
        objects=sum(counts.values()),
        members=members,
        settings=settings,
        multibox=multibox,
        has_multibox=multibox is not None or initial_multibox(init)[0] is not None,
        screen=screen,
        regression=regression,
        measured=0 if validation is None else min(measured, len(validation)),
    )
    run.say(
        f"plan for {len(run.dataset):,} pictures, in all about {duration(total_seconds(stages))} on this machine (a "
        "rough estimate; finished stages are skipped):"
    )
    for number, stage in enumerate(stages, 1):
        run.say(f"  {number}. {stage.name}: {stage.amount}, about {duration(stage.seconds)}")


def _multibox_outcome(proposer: MultiBox | None, trained: MultiBoxSettings | None, init: str) -> str:
    if proposer is None:
        return f"MultiBox: none, {init} has none and none was to be trained"
    return f"MultiBox: kept from {init}" if trained is None else f"MultiBox: trained in {trained.iterations:,} steps"


def _regression_outcome(model: Model, fitted: bool, kept: Model | None, init: str) -> str:
    if model.regressor is None:
        return "box regression: not kept, no gain on held-out boxes" if fitted else "box regression: none"
    if kept is not None and model.regressor is kept.regressor:
        return f"box regression: that of {init}"
    return "box regression: kept, it moves held-out boxes closer to objects"


def _screen_outcome(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return f"screen: trained, with mild thresholds: fewer than {_ONE_UNSEEN_IN} pictures to fit them on"
    return (
        f"screen: trained, it keeps {figures['regions']:.0f} regions of a picture and loses {figures['lost']:.1%} of "
        f"the objects that are found without it (on {figures['pictures']} pictures not trained on)"
    )


def _untrained_pictures(
    validation: Dataset | None, dataset: Dataset, measured: int, warn: Callable[[str], None]
) -> Dataset | None:
    """The pictures of `validation` that are not trained on; None if there are none or none are to be measured."""
    if validation is None or not measured:
        return None
    untrained = validation.without(dataset)
    if not len(untrained):
        warn(f"{validation.name}: all of its pictures are trained on, so the detector is not measured")
        return None
    return untrained


def _initial_network(init: str, out: Path, settings: FineTuneSettings, device: str) -> Backbone:
    """The network to start from. Errors in settings and device are raised here, before annotations are read."""
    if Path(init).resolve() == out.resolve():
        raise TrainingError(f"training starts from the model in {out}: write the new model to another --out")
    torch.manual_seed(settings.seed)
    network = initial_network(init)
    resolve_device(device)
    frozen_blocks(network, settings.freeze_below)
    return network


def _check_multibox(run: _Run, network: Backbone, settings: MultiBoxSettings, out: Path) -> None:
    """Check that MultiBox can be trained, unless a training resumes: its files already take part of the free space."""
    if not run.folder.exists():
        out.mkdir(parents=True, exist_ok=True)
        with _multibox_errors():
            check_multibox(network, settings, run.dataset, out)


def _collect_windows(
    run: _Run,
    dataset: Dataset,
    categories: tuple[Category, ...],
    regions: RegionSettings,
    multibox: MultiBox | None,
    screen: Screen | None,
) -> Windows:
    """The training windows of all pictures, labelled with the outputs of a network that knows `categories`."""
    file = run.folder / "proposals.sqlite"
    with ExitStack() as stack:
        everything = stack.enter_context(all_regions(file, regions, multibox, run.device))
        screened = None
        if multibox is not None and screen is not None:
            screened = stack.enter_context(screened_regions(file, regions, multibox, screen, run.device))
        windows = collect_windows(
            dataset,
            lambda sample: everything(sample.path),
            run.seed,
            run.report,
            None if screened is None else lambda sample: screened(sample.path),
        )
    outputs = {0: 0, **{category.id: output for output, category in enumerate(categories, 1)}}
    labels = np.array([outputs[label] for label in windows.labels.tolist()], np.int64)
    return Windows(windows.images, windows.boxes, labels)


def _warn_of_unknown_classes(
    dataset: Dataset, kept: Model, init: str, counts: dict[int, int], warn: Callable[[str], None]
) -> None:
    known = {category.name for category in kept.categories}
    unknown = [one.name for one in dataset.categories if counts.get(one.id) and one.name not in known]
    if unknown:
        warn(f"{init} does not know some classes, whose objects are left out: {', '.join(unknown)}")


def _fine_tuned_members(
    run: _Run,
    network: Backbone,
    members: int,
    windows: Windows,
    regions: RegionSettings,
    classes: int,
    lesson: Lesson | None,
    settings: FineTuneSettings,
    background_shift: float,
) -> list[Backbone]:
    """The members of an ensemble, each fine-tuned from `network` with a new classifier.

    `background_shift` is added to the background's bias afterwards.
    """
    torch.manual_seed(run.seed)
    if lesson is None or lesson.teacher is None:
        with_classes(network, classes + 1)
    else:
        with_teachers_classifier(network, lesson.teacher, 1 + len(lesson.subclasses))
    crops = _some_crops(run.dataset, windows, regions, run.seed)
    trained = []
    for number in range(1, members + 1):
        member = copy.deepcopy(network)
        fine_tune(
            member,
            run.dataset,
            windows,
            regions,
            settings,
            run.folder,
            lesson=lesson,
            member=number,
            device=run.device,
            stage="training" if members == 1 else f"training member {number} of {members}",
            report=run.report,
        )
        with torch.no_grad():
            member.classifier.bias[0] += background_shift
        member.input_ranges = measure_input_ranges(member, crops)
        trained.append(member)
    discard_features(run.folder)
    return trained


def _card(
    dataset: Dataset,
    categories: tuple[Category, ...],
    counts: dict[int, int],
    taught: set[int | None],
    init: str,
    members: int,
    settings: FineTuneSettings,
) -> dict[str, Any]:
    return {
        "data": dataset.name,
        "pictures": len(dataset),
        "objects": {category.name: counts.get(category.id, 0) for category in categories},
        "taught": [category.name for category in categories if category.id in taught],
        "init": Path(init).name,
        "members": members,
        "settings": asdict(settings),
    }


def _card_of_members(kept: Model) -> dict[str, Any]:
    """The card of kept members, without the parts that are made anew."""
    return {name: value for name, value in kept.card.items() if name not in ("multibox", "screen", "evaluation")}


def _as_stored(model: Model, folder: Path) -> Model:
    """The model with its weights rounded as in a model folder. The later steps are fitted to these weights."""
    with temporary_folder(folder) as stored:
        save_model(model, stored)
        return load_model(stored)


def _trained_or_kept_multibox(
    run: _Run, first: Backbone, settings: MultiBoxSettings | None, init: str
) -> tuple[MultiBox | None, dict[str, Any]]:
    """A trained MultiBox network, or that of `init` if `settings` is None, and its part of the card."""
    if settings is None:
        return initial_multibox(init)

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        run.report(f"MultiBox, {stage}", done, total, figures)

    with _multibox_errors():
        network = train_multibox(
            copy.deepcopy(first), run.dataset, settings, run.folder, device=run.device, report=report
        )
    # Rounded as in a model folder, so that the screen is trained on the maps that it will see.
    return network.half().float(), {
        "data": run.dataset.name,
        "pictures": len(run.dataset),
        "settings": asdict(settings),
    }


@contextmanager
def _multibox_errors() -> Iterator[None]:
    """Add to an error that it concerns MultiBox, and what the user can do."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(
            f"MultiBox: {error}\nNothing is trained yet; --no-multibox leaves MultiBox out, and "
            "detect-train-multibox, which has more options, can add it later"
        ) from error


def _seen_and_unseen(dataset: Dataset, screen: ScreenSettings | None, seed: int) -> tuple[Dataset, Dataset]:
    """Divides the pictures into those that are trained on and the others.

    The thresholds of the screen and the calibration of the scores are fitted on the others, because feature maps and
    scores of training pictures look better than those of new pictures. Without a screen, all pictures are trained on.
    """
    count = 0 if screen is None else min(_MOST_UNSEEN, len(dataset) // _ONE_UNSEEN_IN)
    order = np.random.default_rng([seed, 19]).permutation(len(dataset))
    unseen, seen = np.sort(order[:count]), np.sort(order[count:])
    return dataset.part(seen.tolist()), dataset.part(unseen.tolist())


def _trained_screen(
    run: _Run,
    multibox: MultiBox,
    dataset: Dataset,
    categories: tuple[Category, ...],
    regions: RegionSettings,
    settings: ScreenSettings,
    start: Screen | None,
) -> Screen:
    """A screen with mild thresholds, its weights rounded as in a model folder."""
    with all_regions(run.folder / "proposals.sqlite", regions, multibox, run.device) as propose:
        screen = train_screen(
            multibox,
            dataset,
            lambda sample: propose(sample.path),
            categories,
            settings,
            run.folder,
            start=start,
            device=run.device,
            report=run.report,
        )
    return screen.half().float()


def _fitted_thresholds(run: _Run, model: Model, held_out: Dataset) -> FittedThresholds:
    """The thresholds of the model's screen and the calibration. They are kept in a file, so they are fitted once."""
    with temporary_folder(run.folder) as stored:
        save_model(model, stored)
        key = result_key(model=model_digest(stored), pictures=pictures_key(held_out, range(len(held_out))))
    file = run.folder / f"screen_thresholds_{key}.json"
    if not file.exists():
        fitted = fit_thresholds(model, list(held_out), held_out, device=run.device, report=run.report)
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(asdict(fitted)))
    return FittedThresholds.from_json(json.loads(file.read_text()))


def _fitted_regressor(run: _Run, model: Model, windows: Windows) -> BoxRegressor | None:
    return train_box_regressor(
        model.members[0],
        run.dataset,
        windows,
        model.regions,
        len(model.categories),
        run.folder,
        seed=run.seed,
        device=run.device,
        report=run.report,
    )


def _add_measurement(
    run: _Run, model: Model, out: Path, validation: Dataset, measured: int, warn: Callable[[str], None]
) -> None:
    """Measure the detector in `out`, and add the figures to its card."""
    try:
        model.card["evaluation"] = measure_detector(
            out,
            _with_known_classes(validation, model.categories),
            run.folder,
            pictures=measured,
            seed=run.seed,
            device=run.device,
            report=run.report,
        )
    except TrainingError as error:
        warn(f"the detector could not be measured: {error}")
    save_model(model, out)


def _with_known_classes(dataset: Dataset, categories: tuple[Category, ...]) -> Dataset:
    """`dataset` without the objects of other classes than `categories`.

    Classes are compared by name, because layouts without a class list number the classes of each split separately.
    """
    ids = {category.name: category.id for category in categories}
    new_ids = {category.id: ids[category.name] for category in dataset.categories if category.name in ids}
    return Dataset(dataset.name, categories, range(len(dataset)), partial(_known_at, dataset, new_ids))


def _known_at(dataset: Dataset, ids: dict[int, int], index: int) -> Sample:
    """A sample with the labels that `ids` maps its labels to, without other objects and boxes of area 0."""
    sample = dataset[index]
    known = np.isin(sample.labels, list(ids)) & (area(sample.boxes) > 0)
    labels = np.array([ids[label] for label in sample.labels[known].tolist()], np.int64)
    return replace(
        sample,
        boxes=sample.boxes[known],
        labels=labels,
        difficult=sample.difficult[known],
        outside=None,
        annotated=None if sample.annotated is None else frozenset(ids[one] for one in sample.annotated if one in ids),
    )


def _some_crops(dataset: Dataset, windows: Windows, regions: RegionSettings, seed: int) -> np.ndarray:
    """Random training windows, undistorted: uint8 RGB [N, 224, 224, 3], N at most `_MEASURED_WINDOWS`."""
    rng = np.random.default_rng([seed, 4])
    rows = rng.choice(len(windows), min(_MEASURED_WINDOWS, len(windows)), replace=False)
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
