"""A short run of the fuzz script: no kind of damaged file raises an undocumented error."""

import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("fuzz_script", Path(__file__).with_name("fuzz.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
fuzz = importlib.util.module_from_spec(_SPEC)
sys.modules["fuzz_script"] = fuzz
_SPEC.loader.exec_module(fuzz)


@pytest.mark.parametrize("kind", fuzz.TARGETS)
def test_a_damaged_file_is_read_rightly_or_is_a_documented_error(kind: str) -> None:
    assert fuzz.run(cases=25, seed=0, only=kind) == []


@pytest.mark.parametrize("kind", fuzz.TARGETS)
def test_a_right_file_is_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "right"
    fuzz.TARGETS[kind].make(file)
    assert file.stat().st_size > 0
    fuzz.TARGETS[kind].use(file)  # raises an error if the file is refused


def test_damage_depends_on_seed_and_number_alone() -> None:
    made = [fuzz.damaged(bytes(range(200)), fuzz.np.random.default_rng([0, number])) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
