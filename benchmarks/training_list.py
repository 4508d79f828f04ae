"""Join the pictures that the shipped model is trained on into one folder in the ILSVRC DET layout.

    python benchmarks/training_list.py ILSVRC_FOLDER IMAGENET_VAL_FOLDER --out joined/

The folder holds links to the pictures. Its split `train` has the splits `train` and `extra` of the first data set and a
random half of the split `dev` of the second. `train_annotated.txt` says which classes are annotated where: all classes
in `train`, the classes of its source in a picture of `extra`, and the classes that have a box in a picture of `dev`.

`train_fitted.txt` lists the pictures to which the calibration is fitted; the networks are not trained on them. They are
80 pictures of the split `val` of the first data set, and 40 of the other half of `dev`. `held_out.txt` lists the rest
of that half, on which the model can be measured.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from inception_rcnn.data.ilsvrc import open_dataset

SEED = 15
# `results.py` measures on the pictures of a split in the order of this seed.
SEED_OF_RESULTS = 7
FITTED_OF_VAL, FITTED_OF_DEV = slice(80), slice(130, 170)


def link(target: Path, name: Path) -> None:
    """Make or replace the symbolic link `name`."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    name.symlink_to(target.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout with the splits train, extra and val")
    parser.add_argument("imagenet_val", type=Path, help="data in the ILSVRC DET layout with the split dev")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    arguments = parser.parse_args()
    for kind in ("Data", "Annotations"):
        source, joined = arguments.ilsvrc / kind / "DET", arguments.out / kind / "DET"
        for folder in sorted((source / "train").iterdir()):
            link(folder, joined / "train" / folder.name)
        link(source / "extra", joined / "train" / "extra")
        link(arguments.imagenet_val / kind / "DET" / "dev", joined / "train" / "imagenet")
        link(source / "val", joined / "val")
        link(source / "val", joined / "train" / "val")
    train, extra = open_dataset(arguments.ilsvrc, "train"), open_dataset(arguments.ilsvrc, "extra")
    val = open_dataset(arguments.ilsvrc, "val")
    dev = open_dataset(arguments.imagenet_val, "dev")
    order = np.random.default_rng(SEED).permutation(len(dev))
    learned, held_out = (sorted(part.tolist()) for part in np.split(order, [len(dev) // 2]))
    pictures = [sample.image_id for sample in train]
    pictures += [f"extra/{sample.image_id}" for sample in extra]
    pictures += [f"imagenet/{dev[row].image_id}" for row in learned]
    lists = arguments.out / "ImageSets" / "DET"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "train.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(pictures, 1)))
    (lists / "val.txt").write_text((arguments.ilsvrc / "ImageSets" / "DET" / "val.txt").read_text())
    wnids = {category.id: category.wnid for category in extra.categories}
    of_source: dict[str, set[int]] = defaultdict(set)
    for sample in extra:
        of_source[sample.image_id.rsplit("_", 1)[0]] |= set(sample.labels.tolist())
    lines = [
        f"extra/{source}_*\t{','.join(wnids[label] for label in sorted(labels))}"
        for source, labels in sorted(of_source.items())
    ]
    for name in ("train", "train_fitted"):
        (lists / f"{name}_annotated.txt").write_text("\n".join([*lines, "imagenet/*\tboxed"]) + "\n")
    drawn = np.random.default_rng(SEED_OF_RESULTS).permutation(len(dev))
    of_dev = drawn[np.isin(drawn, held_out)][FITTED_OF_DEV].tolist()
    of_val = np.random.default_rng(SEED_OF_RESULTS).permutation(len(val))[FITTED_OF_VAL].tolist()
    fitted = [f"val/{val[row].image_id}" for row in of_val] + [f"imagenet/{dev[row].image_id}" for row in of_dev]
    (lists / "train_fitted.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(fitted, 1)))
    measured = [row for row in held_out if row not in of_dev]
    (arguments.out / "held_out.txt").write_text("".join(f"{dev[row].image_id} {dev[row].index}\n" for row in measured))
    print(
        f"{len(pictures):,} pictures to train on, {len(fitted)} to fit the calibration to, {len(measured)} of "
        f"{arguments.imagenet_val} held out"
    )


if __name__ == "__main__":
    main()
