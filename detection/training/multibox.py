"""Training a MultiBox network (Erhan et al., CVPR 2014; Szegedy et al., "Scalable, high-quality object detection").

The views of all pictures are drawn before the training. With `freeze_below`, the frozen blocks run once over the
views, and the rest of the network is trained on the stored features. Without it, views are rendered for each step. The
result is the Polyak average of the weights (Polyak & Juditsky, 1992; Going Deeper with Convolutions, section 6).
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ...data.dataset import Dataset
from ...data.images import read_image
from ...proposals.multibox import MultiBox, multibox_loss
from ...proposals.recall import measure, recall
from ..engines.choice import resolve_device
from ..engines.multibox import MultiBoxEngine
from ..model_files import Model, load_model, save_model
from ..networks.backbones import Backbone, headless
from .cascade import fit_cascade
from .checkpoint import Checkpoint
from .dataset_checks import check_dataset
from .errors import TrainingError
from .initial_network import initial_network
from .keys import pictures_key, result_key
from .loop import Training, cosine, mixed_precision, moving_average, read_ahead, train
from .lower_features import LowerBlocks, check_room, stored_features
from .priors import object_sides, prior_grids
from .progress import Report, no_report
from .view_batches import ViewBatches
from .views import View, all_views, rendered_views

WARM_UP_STEPS = 100


@dataclass(frozen=True)
class MultiBoxSettings:
    """The recipe of MultiBox.

    Attributes:
        iterations: number of steps.
        batch: views in a batch.
        learning_rate: largest learning rate of the heads, which are new. It rises during the first steps and then falls
            to 0 along a cosine.
        trunk_factor: the learning rate of the pretrained trunk, as a multiple of that of the heads.
        weight_decay: of AdamW.
        average_decay: of the exponential moving average of the weights.
        alpha: weight of the location loss.
        freeze_below: name of the lowest block that is trained ("inception_4e"); None trains all blocks.
        views: views of each picture; their features are stored when blocks are frozen (0.8 MB for each view below
            inception_4e).
        size: side of the network's input in pixels, a multiple of 32.
        shapes: number of prior shapes.
        seed: of all random choices.
    """

    iterations: int = 2000
    batch: int = 24
    learning_rate: float = 3e-4
    trunk_factor: float = 0.3
    weight_decay: float = 1e-4
    average_decay: float = 0.998
    alpha: float = 1.0
    freeze_below: str | None = "inception_4e"
    views: int = 5
    size: int = 448
    shapes: int = 20
    seed: int = 0


def train_multibox(
    backbone: Backbone,
    dataset: Dataset,
    settings: MultiBoxSettings,
    folder: Path,
    *,
    validation: Dataset | None = None,
    device: str = "auto",
    report: Report = no_report,
) -> MultiBox:
    """Train a MultiBox network on a data set.

    Args:
        backbone: the initial trunk. It loses its classifier and is trained in place.
        dataset: the training pictures.
        settings: the recipe.
        folder: for the checkpoint and the features of frozen blocks. If the checkpoint exists, training resumes from
            it. The features are deleted after the last step.
        validation: pictures on which recall is measured after each epoch; None for no measurement.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the number of views done while frozen blocks run (stage "frozen blocks"), and after each
            step (stage "training") with "loss", its terms "confidence" and "location", and "learning rate". After an
            epoch it is called with "recall": the share of the objects of `validation` that 200 boxes cover at IoU 0.5.

    Returns:
        The network with the averaged weights, in evaluation mode, on the CPU.

    Raises:
        TrainingError: there are no pictures or too few objects, no block is called `freeze_below`, the checkpoint
            belongs to other data, weights or settings, or the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    frozen = _frozen_blocks(backbone, settings.freeze_below)
    views = all_views(dataset, settings.views, settings.size, settings.seed)
    torch.manual_seed(settings.seed)
    network = MultiBox(headless(backbone), prior_grids(views, settings.shapes, settings.seed), sizes=(settings.size,))
    average = moving_average(network, settings.average_decay)
    averaged_network = cast(MultiBox, average.module)
    origin, pictures = _fingerprint(backbone, views), pictures_key(dataset, range(len(dataset)))
    checkpoint = Checkpoint(
        folder / "multibox_checkpoint.safetensors",
        {**asdict(settings), "data and weights": origin, "pictures": pictures},
    )
    features: np.ndarray | None = None
    if frozen and checkpoint.step() < settings.iterations:
        features = stored_features(
            LowerBlocks(backbone, frozen),
            partial(rendered_views, dataset, views, settings.views, settings.size, settings.seed),
            len(views),
            folder / f"multibox_features_{features_key(origin, pictures, settings)}_{settings.freeze_below}.npy",
            size=settings.size,
            device=device,
            report=report,
        )

    backbone.trunk[:frozen].requires_grad_(False)
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average.to(device).eval()
    precision = mixed_precision(device)
    batches = ViewBatches(
        dataset,
        views,
        features,
        network.priors(settings.size),
        size=settings.size,
        batch=settings.batch,
        seed=settings.seed,
    )

    def loss(step: int, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        inputs, assignment, offsets = (tensor.to(device) for tensor in batch)
        x = inputs.float() if frozen else backbone.normalise(inputs.permute(0, 3, 1, 2).float())
        with precision:
            predictions = network.from_row(x.contiguous(memory_format=torch.channels_last), frozen)
        total, (confidence, location) = multibox_loss(predictions.float(), assignment, offsets, settings.alpha)
        return total, {"confidence": confidence.item(), "location": location.item()}

    def failed_batch(step: int, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[dict[str, np.ndarray], list[Path]]:
        arrays = {name: tensor.numpy() for name, tensor in zip(("inputs", "assignment", "offsets"), batch, strict=True)}
        return arrays, batches.pictures(step)

    def recall_after_epoch(done: int) -> dict[str, float]:
        epoch, epoch_before = (steps * settings.batch // len(dataset) for steps in (done, done - 1))
        if validation is None or (epoch == epoch_before and done < settings.iterations):
            return {}
        return {"recall": recall_at_half(averaged_network, validation, device)}

    pretrained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    of_backbone = {id(parameter) for parameter in backbone.parameters()}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in of_backbone]
    optimiser = torch.optim.AdamW(
        [{"params": pretrained, "factor": settings.trunk_factor}, {"params": heads, "factor": 1.0}],
        weight_decay=settings.weight_decay,
    )
    train(
        Training(
            stage="training",
            steps=settings.iterations,
            weights=nn.ModuleDict({"network": network, "average": averaged_network}),
            optimiser=optimiser,
            checkpoint=checkpoint,
            batches=partial(read_ahead, batches),
            loss=loss,
            learning_rate=lambda step: (
                settings.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine(step, settings.iterations)
            ),
            failed_batch=failed_batch,
            failed_batch_file=folder / "multibox_failed_batch.safetensors",
            remedy=(
                f"a lower learning rate of MultiBox (now {settings.learning_rate}; detect-train-multibox has "
                "--learning-rate)"
            ),
            average=(network, average),
            measure=recall_after_epoch,
        ),
        report,
    )
    for file in folder.glob("multibox_features_*"):
        file.unlink()
    return averaged_network.to("cpu")


def features_key(origin: str, pictures: str, settings: MultiBoxSettings) -> str:
    """The key of everything that the features of frozen blocks depend on.

    Args:
        origin: from `_fingerprint`, the views and the weights.
        pictures: from `pictures_key`.
        settings: their seed decides the colours.
    """
    return result_key(
        origin=origin,
        pictures=pictures,
        seed=settings.seed,
        views=settings.views,
        size=settings.size,
        below=settings.freeze_below,
    )


def check_multibox(backbone: Backbone, settings: MultiBoxSettings, dataset: Dataset, folder: Path) -> None:
    """Check before a long training that MultiBox can be trained after it.

    Raises:
        TrainingError: there are too few different objects, the disk of `folder` has no room for the features of frozen
            blocks, or no block is called `freeze_below`.
    """
    object_sides(all_views(dataset, settings.views, settings.size, settings.seed), settings.shapes)
    frozen = _frozen_blocks(backbone, settings.freeze_below)
    if frozen:
        with torch.inference_mode():
            features = LowerBlocks(copy.deepcopy(backbone), frozen).eval()(
                torch.zeros(1, 3, settings.size, settings.size)
            )
        check_room(folder, settings.views * len(dataset) * features.numel() * 2)


def add_multibox(
    model: str,
    dataset: Dataset,
    out: str | Path,
    *,
    init: str | None = None,
    settings: MultiBoxSettings | None = None,
    validation: Dataset | None = None,
    device: str = "auto",
    warn: Callable[[str], None] = lambda warning: None,
    report: Report = no_report,
) -> Model:
    """Train a MultiBox network for a detector, and write both to the model folder `out`.

    The cascade of an ensemble is fitted again, because its first member now scores other regions. The evaluation
    figures of `model` are removed from the card, because they belong to the detector without the new network.

    If the call is repeated with the same arguments after an interruption, training resumes. `out`/training contains
    the checkpoint and, during the training, the features of frozen blocks; it can be deleted afterwards.

    Args:
        model: a model folder or the name of a shipped model.
        dataset: the training pictures; boxes are clipped to their pictures.
        out: the model folder to write.
        init: the initial trunk, see `initial_network`; None for the first member of `model`.
        settings: the recipe; None for the defaults.
        validation, device: see `train_multibox`.
        warn: called with the warnings of `check_dataset`.
        report: see `train_multibox`; after the training it is called with the stage "cascade".

    Returns:
        The detector.

    Raises:
        TrainingError: see `train_multibox`.
        AnnotationError, ImageError, ModelError: a file cannot be used.
    """
    settings = settings or MultiBoxSettings()
    detector = load_model(model)
    torch.manual_seed(settings.seed)
    backbone = copy.deepcopy(detector.members[0]) if init is None else initial_network(init)
    folder = Path(out) / "training"
    dataset, _ = check_dataset(dataset, warn=warn, learns_classes=False)
    network = train_multibox(backbone, dataset, settings, folder, validation=validation, device=device, report=report)
    card = {
        "data": dataset.name,
        "pictures": len(dataset),
        "init": Path(model if init is None else init).name,
        "settings": asdict(settings),
    }
    known = {name: value for name, value in detector.card.items() if name not in ("evaluation", "screen")}
    # The screen reads the maps of the old MultiBox network; detect-train --keep-members trains a new screen.
    trained = replace(detector, multibox=network, screen=None, card={**known, "multibox": card})
    if trained.cascade is not None:
        trained.cascade = fit_cascade(trained, dataset, folder, seed=settings.seed, device=device, report=report)
    save_model(trained, out)
    return trained


def recall_at_half(network: MultiBox, dataset: Dataset, device: str = "auto") -> float:
    """The share of the objects of `dataset` that the 200 best boxes of their picture cover at IoU 0.5, in 0..1."""
    engine = MultiBoxEngine(network, device=device)
    coverage = measure(dataset, lambda sample: engine(read_image(sample.path)), counts=(200,))
    return float(recall(coverage.closest[-1], [0.5])[0])


def _frozen_blocks(backbone: Backbone, freeze_below: str | None) -> int:
    """The number of blocks that `freeze_below` freezes. The heads need inception_4e, so it cannot be frozen."""
    names = [name for name, _ in backbone.trunk.named_children()]
    possible = names[: names.index("inception_4e") + 1]
    if freeze_below is None:
        return 0
    if freeze_below not in possible:
        raise TrainingError(
            f"cannot freeze below {freeze_below!r}: expected a block up to inception_4e, on which the heads stand "
            f"({', '.join(possible)})"
        )
    return names.index(freeze_below)


def _fingerprint(backbone: nn.Module, views: list[View]) -> str:
    """A digest of the views and the weights that a training starts from."""
    digest = hashlib.sha256()
    for view in views:
        for array in (view.window, np.array(view.mirrored), view.boxes, view.ignored):
            digest.update(np.ascontiguousarray(array).tobytes())
    for value in backbone.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
