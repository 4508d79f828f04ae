"""Training a detector on a data set, from pictures to a model folder: the stages in their order."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from ...data.dataset import Dataset
from ...runtime.atomic_write import temporary_folder
from ..engines.choice import resolve_device
from ..model_files import Model, RegionSettings, load_model, save_model
from ..networks.backbones import Backbone
from .box_regression import train_box_regressor
from .cascade import fit_cascade
from .dataset_checks import OutsidePolicy, check_dataset
from .errors import TrainingError
from .finetune import FineTuneSettings, frozen_blocks
from .initial_network import initial_multibox, initial_network, initial_screen
from .known_classes import warn_of_unknown_classes, with_known_classes
from .measure_detector import measure_detector
from .members_stage import BACKGROUND_SHIFT, card_of_kept_members, card_of_training, fine_tuned_members
from .multibox import MultiBoxSettings
from .multibox_stage import check_multibox_stage, trained_or_kept_multibox
from .plan import Recipe, measure_speed, plan_sentences, plan_stages
from .progress import Report, Say, no_report, no_words
from .screen import ScreenSettings
from .screen_stage import fit_screen, keep_screen, mild_screen, trained_screen, why_no_screen
from .split import seen_and_unseen, untrained_pictures
from .teacher import Teacher, make_lesson
from .training_run import TrainingRun
from .windows import Windows
from .windows_stage import training_windows


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
        screen: the recipe of the screen, which needs a MultiBox network; None trains no screen. If the data set is too
            small for a new screen, or if the members are kept and `screen` is None, the detector keeps the screen and
            the calibration of `init`, if it also keeps its MultiBox network.
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
    validation = untrained_pictures(validation, dataset, warn) if validation is not None and measured else None
    has_multibox = multibox is not None or initial_multibox(init)[0] is not None
    unseen = dataset.part([])
    if screen is not None and has_multibox:
        dataset, unseen = seen_and_unseen(dataset, settings.seed)
    if len(unseen):
        counts = Counter(label for sample in dataset for label in sample.labels[~sample.difficult].tolist())
    # A screen reads the maps of the MultiBox network with which it was trained.
    old_screen = initial_screen(init) if multibox is None else None
    kept_screen = None if len(unseen) or (screen is None and members) else old_screen
    recipe = Recipe(
        members=members,
        settings=settings,
        multibox=multibox,
        screen=screen if len(unseen) else None,
        regression=regression,
        has_multibox=has_multibox,
        has_screen=kept_screen is not None or len(unseen) > 0,
    )

    run = TrainingRun(dataset, out / "training", init, settings.seed, device, report, say)
    kept = None if members else load_model(init)
    if kept is None:
        regions = regions or RegionSettings()
        taught = set() if teacher is None else {one.category for one in teacher.outputs}
        categories = tuple(one for one in dataset.categories if counts.get(one.id) or one.id in taught)
        annotated = dataset
        card = card_of_training(run, categories, counts, taught, members, settings)
    else:
        regions, categories = kept.regions, kept.categories
        annotated = with_known_classes(dataset, categories)
        card = card_of_kept_members(kept)
        warn_of_unknown_classes(dataset, counts, categories, init, warn)

    if multibox is not None and not run.folder.exists():  # Files of a resumed training already take part of the space.
        check_multibox_stage(run, network, multibox, out)
    if say is not no_words:
        to_measure = 0 if validation is None else min(measured, len(validation))
        _say_plan(run, network, recipe, sum(counts.values()), to_measure)

    run.folder.mkdir(parents=True, exist_ok=True)
    proposer, multibox_card = trained_or_kept_multibox(run, network, multibox)

    new_screen = None
    if recipe.screen is not None and proposer is not None:
        start = None if old_screen is None else old_screen.screen
        new_screen = trained_screen(run, proposer, categories, regions, recipe.screen, start)

    windows: Windows | None = None
    if members or regression:
        rough = new_screen if kept_screen is None else mild_screen(kept_screen.screen)
        windows = training_windows(run, annotated, categories, regions, proposer, rough)

    if kept is None:
        assert windows is not None
        lesson = make_lesson(teacher, dataset, categories, set(counts))
        subclasses = () if lesson is None else lesson.subclasses
        shift = 0.0 if len(unseen) else BACKGROUND_SHIFT
        networks = fine_tuned_members(run, network, members, windows, regions, len(categories), lesson, settings, shift)
    else:
        networks, subclasses = kept.members, kept.subclasses
        say(f"networks: {len(networks)} kept from {init}")

    model = Model(networks, categories, regions, card, multibox=proposer, screen=new_screen, subclasses=subclasses)
    model = _as_stored(model, run.folder)
    if multibox_card:
        model.card["multibox"] = multibox_card
    if not (out / "model.json").exists():  # The model can be used even if a later step fails.
        save_model(model, out)

    _add_regressor(run, model, windows if regression else None, kept)
    if kept_screen is not None:
        keep_screen(run, model, kept_screen, new_members=kept is None)
    # The few regions that a screen keeps are worth all networks: of 130 pictures that were not trained on, a cascade
    # after the screen lowered the mean AP from 0.544 to 0.463.
    if len(model.members) > 1 and model.screen is None:
        model.cascade = fit_cascade(model, dataset, run.folder, seed=run.seed, device=device, report=report)
        say(f"cascade: the first network decides with the threshold {model.cascade:.3f} what the others score")

    if recipe.screen is not None:
        fit_screen(run, model, recipe.screen, unseen)
    elif kept_screen is None:
        say(why_no_screen(wanted=screen is not None, has_multibox=has_multibox))

    save_model(model, out)
    if validation is not None:
        _add_measurement(run, model, out, validation, measured, warn)
    return load_model(out)


def _initial_network(init: str, out: Path, settings: FineTuneSettings, device: str) -> Backbone:
    """The network to start from. Errors in settings and device are raised here, before annotations are read."""
    if Path(init).resolve() == out.resolve():
        raise TrainingError(f"training starts from the model in {out}: write the new model to another --out")
    torch.manual_seed(settings.seed)
    network = initial_network(init)
    resolve_device(device)
    frozen_blocks(network, settings.freeze_below)
    return network


def _say_plan(run: TrainingRun, network: Backbone, recipe: Recipe, objects: int, measured: int) -> None:
    """Say what the training will do, and about how long it takes. The arguments are those of `plan_stages`."""
    speed = measure_speed(network, recipe.settings.freeze_below, run.device)
    stages = plan_stages(speed, recipe, pictures=len(run.dataset), objects=objects, measured=measured)
    for sentence in plan_sentences(stages, len(run.dataset)):
        run.say(sentence)


def _as_stored(model: Model, folder: Path) -> Model:
    """The model with its weights rounded as in a model folder. The later steps are fitted to these weights."""
    with temporary_folder(folder) as stored:
        save_model(model, stored)
        return load_model(stored)


def _add_regressor(run: TrainingRun, model: Model, windows: Windows | None, kept: Model | None) -> None:
    """Give the model a box regression that is fitted on `windows`, else that of the model `kept`, else none."""
    if windows is not None:
        model.regressor = train_box_regressor(
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
    if model.regressor is not None:
        run.say("box regression: kept, it moves held-out boxes closer to objects")
    elif kept is not None and kept.regressor is not None:
        model.regressor = kept.regressor
        run.say(f"box regression: that of {run.init}")
    else:
        run.say("box regression: none" if windows is None else "box regression: not kept, no gain on held-out boxes")


def _add_measurement(
    run: TrainingRun, model: Model, out: Path, validation: Dataset, measured: int, warn: Callable[[str], None]
) -> None:
    """Measure the detector in `out`, and add the figures to its card."""
    try:
        model.card["evaluation"] = measure_detector(
            out,
            with_known_classes(validation, model.categories),
            run.folder,
            pictures=measured,
            seed=run.seed,
            device=run.device,
            report=run.report,
        )
    except TrainingError as error:
        warn(f"the detector could not be measured: {error}")
    save_model(model, out)
