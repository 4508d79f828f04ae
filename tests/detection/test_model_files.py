"""Model folders, with narrow networks."""

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.detection.calibration import ScoreCalibration, ScreenedCalibration
from inception_rcnn.detection.model_files import (
    Model,
    RegionSettings,
    load_model,
    save_model,
)
from inception_rcnn.detection.networks.backbones import TorchvisionGoogLeNet, headless, with_classes
from inception_rcnn.detection.networks.weights import ModelError
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.screen import Screen, ScreenThresholds

pytestmark = pytest.mark.usefixtures("tiny_googlenet")

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "zèbre", "zèbre"))


@pytest.fixture
def model(tiny_googlenet) -> Model:
    torch.manual_seed(0)
    members = [GoogLeNet(3, auxiliary=False).eval() for _ in range(2)]
    return Model(members, CATEGORIES, RegionSettings(superpixel_scale=1.5, padding=8), {"data": "none"})


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_kernels_come_back_within_half_a_step_of_8_bits_and_biases_in_float16(model, folder):
    loaded = load_model(folder)
    assert (loaded.categories, loaded.regions, loaded.card) == (model.categories, model.regions, model.card)
    assert len(loaded.members) == 2
    for before, after in zip(model.members, loaded.members, strict=True):
        assert not after.training
        for name, value in before.state_dict().items():
            stored = after.state_dict()[name]
            if value.ndim < 2:
                torch.testing.assert_close(stored, value.half().float(), rtol=0, atol=0)
                continue
            step = value.flatten(1).abs().amax(1) / 127 * (1 + 1 / 2048)  # for each output
            assert ((stored - value).flatten(1).abs().amax(1) <= step / 2).all(), name


def test_a_file_holds_kernels_in_8_bits_a_scale_for_each_output_and_the_rest_in_16_bits(folder):
    stored = load_file(folder / "member_1.safetensors")
    kernel = stored["trunk.conv2.convolution.weight"]  # the narrow stem: 64 / 16 inputs, 192 / 16 outputs
    assert (kernel.dtype, tuple(kernel.shape)) == (torch.int8, (12, 4, 3, 3))
    assert kernel.flatten(1).abs().amax(1).tolist() == [127] * 12
    scale = stored["trunk.conv2.convolution.weight.scale"]
    assert (scale.dtype, tuple(scale.shape)) == (torch.float32, (12,))
    assert stored["trunk.conv2.convolution.bias"].dtype == torch.float16
    assert {value.dtype for name, value in stored.items() if name.endswith("weight")} == {torch.int8}


def test_blocks_that_all_members_share_are_stored_once(model, tmp_path):
    second = copy.deepcopy(model.members[0])
    with torch.no_grad():
        second.trunk.inception_5b.conv1x1.convolution.weight += 1
    model.members[1] = second
    save_model(model, tmp_path / "shared")
    names = load_file(tmp_path / "shared" / "member_2.safetensors").keys()
    assert {name.split(".")[1] for name in names if name.startswith("trunk.")} == {"inception_5b"}
    loaded = load_model(tmp_path / "shared")
    first, other = (member.state_dict() for member in loaded.members)
    different = {name for name in first if not torch.equal(first[name], other[name])}
    assert different == {"trunk.inception_5b.conv1x1.convolution.weight"}
    save_model(loaded, tmp_path / "again")
    for file in (tmp_path / "shared").glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_members_that_leave_out_more_blocks_than_declared_are_refused(model, tmp_path):
    model.members[1] = copy.deepcopy(model.members[0])
    save_model(model, tmp_path / "shared")
    file = tmp_path / "shared" / "model.json"
    document = json.loads(file.read_text())
    assert document["shared_blocks"] == len(model.members[0].trunk)
    file.write_text(json.dumps({**document, "shared_blocks": 3}))
    with pytest.raises(ModelError, match=r"member_2.safetensors: the weights do not fit the network: .* missing"):
        load_model(tmp_path / "shared")


def test_saving_what_was_loaded_changes_nothing(model, folder, tmp_path):
    save_model(load_model(folder), tmp_path / "again")
    for number in (1, 2):
        name = f"member_{number}.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_kernels_of_zeros_are_stored(tmp_path):
    network = GoogLeNet(3, auxiliary=False)
    torch.nn.init.zeros_(network.classifier.weight)
    save_model(Model([network], CATEGORIES), tmp_path)
    assert (load_model(tmp_path).members[0].classifier.weight == 0).all()


def test_weights_in_float16_of_older_folders_are_read(model, folder):
    weights = {name: value.half() for name, value in model.members[0].state_dict().items()}
    save_file(weights, folder / "member_1.safetensors")
    for name, value in load_model(folder).members[0].state_dict().items():
        torch.testing.assert_close(value, weights[name].float(), rtol=0, atol=0)


def test_a_scale_without_weights_is_named(folder):
    file = folder / "member_1.safetensors"
    save_file({**load_file(file), "classifier.weight.scale": torch.ones(7)}, file)
    with pytest.raises(ModelError, match=r"member_1.*classifier\.weight\.scale has shape \[7\], but there is no"):
        load_model(folder)


def test_input_ranges_for_8_bits_come_back_and_older_folders_have_none(model, tmp_path):
    ranges = [{"trunk.conv2.convolution": 71.25}, {}]
    for member, measured in zip(model.members, ranges, strict=True):
        member.input_ranges = measured
    save_model(model, tmp_path)
    model.members[0].input_ranges = {}
    assert [member.input_ranges for member in load_model(tmp_path).members] == ranges
    document = json.loads((tmp_path / "model.json").read_text())
    del document["input_ranges"]
    (tmp_path / "model.json").write_text(json.dumps(document))
    assert [member.input_ranges for member in load_model(tmp_path).members] == [{}, {}]


@pytest.mark.parametrize(
    "make",
    [
        lambda: GoogLeNet(3, stem="separable", batch_norm=True, auxiliary=False),
        lambda: with_classes(TorchvisionGoogLeNet(), 3),
    ],
    ids=["separable stem and batch norm", "torchvision"],
)
def test_every_kind_of_network_comes_back_as_itself(make, tmp_path):
    network = make()
    save_model(Model([network], CATEGORIES), tmp_path)
    loaded = load_model(tmp_path).members[0]
    assert type(loaded) is type(network)
    assert loaded.state_dict().keys() == network.state_dict().keys()


def test_auxiliary_heads_are_not_saved(tmp_path):
    save_model(Model([GoogLeNet(3)], CATEGORIES), tmp_path)
    assert not [name for name in load_file(tmp_path / "member_1.safetensors") if "auxiliary" in name]


class Killed(BaseException):
    """Ends the program, as far as `save_model` can tell."""


def kill_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets `calls` calls that flush, rename or delete a file succeed, and makes every later one end the program."""
    done: list[str] = []

    def patch(owner, name):
        real = getattr(owner, name)

        def call(*arguments, **options):
            if len(done) == calls:
                raise Killed
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    patch(os, "fsync")
    patch(Path, "replace")
    patch(Path, "unlink")
    return done


def test_a_kill_while_saving_leaves_the_old_model_until_the_new_one_is_on_the_disk_and_never_a_mixture(
    model, folder, tmp_path
):
    new = Model(model.members[:1], CATEGORIES, card={"data": "new"})
    seen = []
    for calls in range(100):
        place = tmp_path / str(calls)
        shutil.copytree(folder, place)
        with pytest.MonkeyPatch.context() as patch:
            done = kill_after(calls, patch)
            try:
                save_model(new, place)
                finished = True
            except Killed:
                finished = False
        flushed = done.count("fsync")
        try:
            found = load_model(place).card["data"]
        except ModelError as error:
            assert "no model at" in str(error)  # noqa: PT017
            found = "nothing"
        if found != "none":
            assert flushed >= 2  # model.json and member_1.safetensors
        seen.append(found)
        if finished:
            break
    assert list(dict.fromkeys(seen)) == ["none", "nothing", "new"]
    assert sorted(file.name for file in place.iterdir()) == ["member_1.safetensors", "model.json"]


def test_a_full_disk_while_saving_leaves_the_old_model_and_no_partial_files(model, folder, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(BoxRegressor, "save", lambda self, file: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save_model(with_regression(2), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e6])
def test_a_model_with_a_number_that_is_not_finite_is_not_saved_and_the_old_model_stays(folder, number):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for part in ("members", "multibox", "screen"):
        model = model_with_screen()
        network = model.members[0] if part == "members" else getattr(model, part)
        next(network.parameters()).data.view(-1)[0] = number if part != "members" or number != 1e6 else float("nan")
        with pytest.raises(ModelError, match="not finite in float16"):
            save_model(model, folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["dog ", "a\nb", "a\1b", "\ud800", "", "z" * 257])
def test_a_model_with_names_that_files_cannot_hold_is_not_saved(model, tmp_path, name):
    model.categories = (replace(model.categories[0], name=name), *model.categories[1:])
    with pytest.raises(ModelError, match="the name of a class: expected"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_whose_networks_have_other_outputs_than_its_classes_is_not_saved(model, tmp_path):
    model.subclasses = tuple(Subclass(f"n0000000{i}", f"kind {i}", model.categories[0].id) for i in range(7))
    with pytest.raises(ModelError, match=r"member 1 has \d outputs, expected 8: the background and each subclass"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_settings_that_are_not_numbers_are_not_saved(model, folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for changed in (
        replace(model, cascade=float("nan")),
        replace(model, calibration=ScoreCalibration(1.0, float("inf"), 0.0)),
        replace(model, card={"evaluation": {"mAP": float("nan")}}),
    ):
        with pytest.raises(ModelError, match="NaN or infinite"):
            save_model(changed, folder)
    regression = with_regression(2)
    regression.regressor.weights[0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="box regression has a weight that is not finite"):
        save_model(regression, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_smaller_ensemble_leaves_no_members_of_the_larger_behind(model, folder):
    save_model(Model(model.members[:1], CATEGORIES), folder)
    assert [file.name for file in folder.glob("member_*")] == ["member_1.safetensors"]
    assert len(load_model(folder).members) == 1


@pytest.mark.parametrize("stem", ["plain", "separable"])
def test_a_multibox_network_comes_back_as_itself(stem, tmp_path):
    grids = [PriorGrid(16, 2, ((10.0, 20.0),)), PriorGrid(32, 1, ((90.0, 60.0), (200.0, 150.0)))]
    multibox = MultiBox(headless(GoogLeNet(3, stem=stem)), grids, width=8, sizes=(64, 96)).eval()
    save_model(Model([GoogLeNet(3, stem=stem, auxiliary=False)], CATEGORIES, multibox=multibox), tmp_path)
    loaded = load_model(tmp_path).multibox
    assert not loaded.training
    assert (loaded.grids, loaded.split, loaded.width, loaded.sizes) == (tuple(grids), "inception_4e", 8, (64, 96))
    for name, value in multibox.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float(), rtol=0, atol=0)
    save_model(Model([GoogLeNet(3, auxiliary=False)], CATEGORIES), tmp_path)
    assert load_model(tmp_path).multibox is None
    assert not (tmp_path / "multibox.safetensors").exists()


def model_with_screen() -> Model:
    torch.manual_seed(0)
    trunk = headless(GoogLeNet(1, auxiliary=False))
    multibox = MultiBox(trunk, [PriorGrid(16, 1, ((12.0, 12.0),))], width=8, sizes=(64,)).eval()
    screen = Screen(
        2, multibox.lateral_fine.in_channels, multibox.lateral_coarse.in_channels, width=8, grid=3, hidden=16
    )
    screen.class_names, screen.thresholds = ("dog", None), ScreenThresholds(score=0.03, nms=0.8)
    return Model([GoogLeNet(3, auxiliary=False)], CATEGORIES, multibox=multibox, screen=screen.eval())


def test_a_loaded_model_does_not_change_with_its_files(tmp_path, tiny_googlenet):
    """Files may be replaced in place, for example by `cp`, while a detector runs."""
    save_model(Model([GoogLeNet(3, auxiliary=False, batch_norm=True)], CATEGORIES), tmp_path)
    loaded = load_model(tmp_path).members[0].state_dict()
    before = {name: value.clone() for name, value in loaded.items()}
    with (tmp_path / "member_1.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\x7f" * size)
    for name, value in loaded.items():
        assert torch.equal(value, before[name]), name


def test_members_that_share_blocks_have_tensors_of_their_own(tmp_path, tiny_googlenet):
    first = GoogLeNet(3, auxiliary=False)
    save_model(Model([first, copy.deepcopy(first)], CATEGORIES), tmp_path)
    one, two = (dict(member.named_parameters()) for member in load_model(tmp_path).members)
    with torch.no_grad():
        one["trunk.conv1.convolution.bias"] += 1
    assert not torch.equal(one["trunk.conv1.convolution.bias"], two["trunk.conv1.convolution.bias"])


def test_a_screen_comes_back_in_float16_with_its_thresholds(tmp_path, tiny_googlenet):
    model = model_with_screen()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).screen
    assert loaded.thresholds == ScreenThresholds(score=0.03, nms=0.8)
    assert loaded.class_names == model.screen.class_names == ("dog", None)
    for name, value in model.screen.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float(), rtol=0, atol=0)
    assert not loaded.training


def test_a_calibration_comes_back(tmp_path, tiny_googlenet):
    for screened in (None, ScreenedCalibration(0.5, 0.25, 0.75, -0.5)):
        model = replace(model_with_screen(), calibration=ScoreCalibration(0.75, 0.5, -1.25, screened))
        save_model(model, tmp_path)
        assert load_model(tmp_path).calibration == model.calibration
    save_model(replace(model, calibration=None), tmp_path)
    assert load_model(tmp_path).calibration is None


def test_subclasses_come_back_and_add_to_their_categories(tmp_path, tiny_googlenet):
    first, second = CATEGORIES
    subclasses = (
        Subclass("n1", "beagle", second.id),
        Subclass("n2", "seashore", None),
        Subclass("n3", "tabby", first.id),
        Subclass("n4", "Samoyed", second.id),
    )
    model = Model([GoogLeNet(5, auxiliary=False)], CATEGORIES, subclasses=subclasses)
    assert model.output_columns().tolist() == [0, 2, 0, 1, 2]
    save_model(model, tmp_path)
    assert load_model(tmp_path).subclasses == subclasses
    assert Model([], CATEGORIES).output_columns() is None
    save_model(replace(model, subclasses=(*subclasses[:2], subclasses[3], subclasses[3])), tmp_path)
    with pytest.raises(ModelError, match="some categories have no subclass"):
        load_model(tmp_path)


def test_a_screen_may_have_more_classes_than_the_detector(tmp_path, tiny_googlenet):
    """A detector that is trained on few pictures keeps the screen of the model that it started from."""
    model = model_with_screen()
    channels = model.multibox.lateral_fine.in_channels, model.multibox.lateral_coarse.in_channels
    model.screen = Screen(7, *channels, width=8, grid=3, hidden=16).eval()
    save_model(model, tmp_path)
    assert load_model(tmp_path).screen.num_classes == 7


def test_a_screen_of_an_older_model_knows_no_class(tmp_path, tiny_googlenet):
    save_model(model_with_screen(), tmp_path)
    file = tmp_path / "model.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["screen"].pop("classes") == ["dog", None]
    file.write_text(json.dumps(document), encoding="utf-8")
    loaded = load_model(tmp_path).screen
    assert (loaded.num_classes, loaded.class_names) == (2, (None, None))


def test_a_screen_without_a_multibox_network_is_refused(tmp_path, tiny_googlenet):
    save_model(model_with_screen(), tmp_path)
    document = json.loads((tmp_path / "model.json").read_text())
    document["multibox"] = None
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"model\.json: the model has a screen, but no MultiBox network"):
        load_model(tmp_path)


def test_a_model_without_a_screen_replaces_a_model_with_one(tmp_path, tiny_googlenet):
    save_model(model_with_screen(), tmp_path)
    save_model(replace(model_with_screen(), screen=None), tmp_path)
    assert load_model(tmp_path).screen is None
    assert not (tmp_path / "screen.safetensors").exists()


def test_a_missing_multibox_network_is_named(tmp_path):
    multibox = MultiBox(headless(GoogLeNet(3)), [PriorGrid(32, 1, ((90.0, 60.0),))], width=8)
    save_model(Model([GoogLeNet(3, auxiliary=False)], CATEGORIES, multibox=multibox), tmp_path)
    (tmp_path / "multibox.safetensors").unlink()
    with pytest.raises(ModelError, match=r"multibox\.safetensors: the file is missing"):
        load_model(tmp_path)


def test_a_model_that_does_not_exist_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"no model at .*nowhere.*detect-train --out"):
        load_model(tmp_path / "nowhere")


def test_a_missing_member_is_named(folder):
    (folder / "member_2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"member_2\.safetensors: the file is missing"):
        load_model(folder)


def test_a_cut_weights_file_is_named(folder):
    file = folder / "member_1.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"member_1\.safetensors: damaged"):
        load_model(folder)


def test_weights_of_another_network_do_not_fit(folder):
    save_file({"something": torch.zeros(1)}, folder / "member_1.safetensors")
    with pytest.raises(ModelError, match=r"member_1.*do not fit"):
        load_model(folder)


def test_more_classes_than_outputs_do_not_fit(folder):
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    document["categories"].append({"id": 9, "wnid": "a", "name": "a"})
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"classifier.* has shape \[3"):
        load_model(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "inception-rcnn model 1"}', '{"format": "another"}', '"text"', "\xff"]
)
def test_a_broken_description_is_named(folder, text):
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model\.json"):
        load_model(folder)


def with_regression(classes: int) -> Model:
    torch.manual_seed(0)
    weights = np.random.default_rng(0).normal(size=(classes, 1 + 5 * 64, 4)).astype(np.float32)
    return Model([GoogLeNet(3, auxiliary=False).eval()], CATEGORIES, regressor=BoxRegressor(weights))


def test_a_box_regression_is_stored_in_float16_whatever_the_size_of_its_features(model, tmp_path):
    regressed = with_regression(2)
    weights = regressed.regressor.weights
    weights[:, 7] *= 1e9
    weights[:, 8] *= 1e-9
    weights[:, 9] = 0
    save_model(regressed, tmp_path)
    loaded = load_model(tmp_path).regressor
    largest = np.maximum(np.abs(weights).max((0, 2))[:, None], 1e-30)  # for each feature
    np.testing.assert_allclose(loaded.weights / largest, weights / largest, atol=6e-4)
    save_model(load_model(tmp_path), tmp_path / "again")
    np.testing.assert_array_equal(load_model(tmp_path / "again").regressor.weights, loaded.weights)
    save_model(Model(regressed.members, CATEGORIES), tmp_path)
    assert load_model(tmp_path).regressor is None
    assert not (tmp_path / "box_regression.safetensors").exists()


def test_a_folder_of_before_box_regression_has_none(folder):
    document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    del document["box_regression"]
    (folder / "model.json").write_text(json.dumps(document))
    assert load_model(folder).regressor is None


def test_a_box_regression_that_is_missing_or_damaged_or_has_other_classes_is_named(tmp_path):
    save_model(with_regression(3), tmp_path)
    with pytest.raises(ModelError, match=r"box_regression.*the regression has 3 classes, expected 2"):
        load_model(tmp_path)
    (tmp_path / "box_regression.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"box_regression\.safetensors: damaged"):
        load_model(tmp_path)
    (tmp_path / "box_regression.safetensors").unlink()
    with pytest.raises(ModelError, match=r"box_regression\.safetensors: the file is missing"):
        load_model(tmp_path)


def test_a_layer_of_a_size_that_the_weights_do_not_have_is_named_before_it_is_made(tmp_path):
    save_model(model_with_screen(), tmp_path)
    file = tmp_path / "model.json"
    right = file.read_text(encoding="utf-8")
    for path, value in [
        ("multibox.width", 9), ("multibox.width", 2**20), ("multibox.split", "inception_9z"),
        ("multibox.split", "conv1"), ("multibox.grids", []), ("multibox.grids.0.division", 64),
        ("screen.classes", 5), ("screen.classes", 2**20), ("screen.width", 2**20), ("screen.hidden", 2**20),
        ("screen.grid", 64), ("screen.fine_channels", 5), ("screen.coarse_channels", 2**20),
    ]:  # fmt: skip
        document = json.loads(right)
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place = document
        for part in parents:
            place = place[part]
        place[last] = value
        file.write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(ModelError, match=path.split(".")[0]) as error:
            load_model(tmp_path)
        assert len(str(error.value)) < 600, path


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = model_with_screen()
    model.regressor = with_regression(2).regressor
    save_model(model, tmp_path)
    for file in ("member_1", "multibox", "screen", "box_regression"):
        path = tmp_path / f"{file}.safetensors"
        right = path.read_bytes()
        tensors = load_file(path)
        name = next(name for name in tensors if name.endswith(("bias", "weights")))
        tensors[name].reshape(-1)[0] = float("inf") if file == "screen" else float("nan")
        save_file(tensors, path)
        with pytest.raises(ModelError, match=rf"{file}\.safetensors: .*NaN or infinite"):
            load_model(tmp_path)
        path.write_bytes(right)


def test_a_negative_variance_is_named(tmp_path):
    save_model(Model([GoogLeNet(3, batch_norm=True, auxiliary=False)], CATEGORIES), tmp_path)
    file = tmp_path / "member_1.safetensors"
    tensors = load_file(file)
    tensors["trunk.conv2.batch_norm.running_var"][1] = -0.5
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"member_1.*conv2\.batch_norm\.running_var has a negative variance"):
        load_model(tmp_path)


def test_weights_of_another_kind_are_named(folder):
    file = folder / "member_1.safetensors"
    right = load_file(file)
    without_scale = {name: value for name, value in right.items() if name != "classifier.weight.scale"}
    for changed in (
        without_scale,
        {**right, "classifier.weight.scale": torch.tensor(1.0)},
        {**right, "classifier.weight.scale": torch.full((3,), float("nan"))},
        {**right, "classifier.bias": torch.zeros(3, dtype=torch.int64)},
        {**right, "classifier.bias": torch.zeros(3, dtype=torch.complex64)},
        {**right, "classifier.bias": torch.full((3,), 1e300, dtype=torch.float64)},
    ):
        save_file(changed, file)
        with pytest.raises(ModelError, match=r"member_1\.safetensors.*classifier"):
            load_model(folder)


def test_classes_with_the_same_box_regression_share_a_map_in_the_file(tmp_path):
    regressed = with_regression(2)
    regressed.regressor.weights[1] = regressed.regressor.weights[0]
    save_model(regressed, tmp_path)
    stored = load_file(tmp_path / "box_regression.safetensors")
    assert (len(stored["weights"]), stored["map_of_class"].tolist()) == (1, [0, 0])
    weights = load_model(tmp_path).regressor.weights
    assert weights.shape == (2, 321, 4)
    np.testing.assert_array_equal(weights[0], weights[1])


@pytest.mark.parametrize("map_of_class", [[0, 1, 1], [0, 2], [-1, 0], [[0, 1]], [0.0, 1.0]])
def test_a_map_of_classes_that_does_not_fit_is_damage(tmp_path, map_of_class):
    save_model(with_regression(2), tmp_path)
    file = tmp_path / "box_regression.safetensors"
    save_file({**load_file(file), "map_of_class": torch.tensor(map_of_class)}, file)
    with pytest.raises(ModelError, match=r"box_regression\.safetensors: damaged"):
        load_model(tmp_path)


def test_a_box_regression_of_other_shapes_is_named_and_not_multiplied(tmp_path):
    save_model(with_regression(2), tmp_path)
    file = tmp_path / "box_regression.safetensors"
    for weights, scale in [
        ((100_000, 1, 4), (100_000,)), ((2, 321, 4), ()), ((2, 321), (321,)), ((2, 321, 4), (320,)),
    ]:  # fmt: skip
        save_file({"weights": torch.zeros(weights, dtype=torch.float16), "scale": torch.zeros(scale)}, file)
        with pytest.raises(ModelError, match=r"box_regression\.safetensors: damaged"):
            load_model(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", "..", "/dev/null"])
def test_a_name_that_cannot_be_a_model_is_a_short_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no model at") as error:
        load_model(name)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("file", ["model.json", "member_1.safetensors"])
def test_a_folder_in_place_of_a_file_is_named(folder, file):
    (folder / file).unlink()
    (folder / file).mkdir()
    with pytest.raises(ModelError, match="model"):
        load_model(folder)
