"""The mutants of scripts/mutants.py can be made: what they change is there once, and its tests exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def mutants():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts/mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.what)
def test_a_mutant_can_be_made(mutant):
    text = (ROOT / "mope/equinox" / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_every_condition_has_two_mutants_and_their_tests_exist():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests/equinox").glob("test_*.py"))
    names = re.findall(r"^def (test_\w+)", tests, re.MULTILINE)
    for mutant in mutants():
        for word in mutant.tests.split(" or "):
            assert any(word in name for name in names), (mutant.what, word)
    counts = [sum(mutant.condition == str(number) for mutant in mutants()) for number in range(1, 12)]
    assert min(counts) >= 2
