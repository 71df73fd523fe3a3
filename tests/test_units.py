"""Units go in and out exactly, and nothing is guessed."""

import pytest
from ase import units as ase_units
from hypothesis import given
from hypothesis import strategies as st

from ase_cg.errors import InputError
from ase_cg.units import KCAL_PER_MOL, quantity, thermal_energy, unit


def test_units_are_those_of_ase():
    assert unit("nm", "length") == 10.0
    assert unit("kcal/mol", "energy") == pytest.approx(ase_units.kcal / ase_units.mol, rel=1e-15)
    assert unit("kJ/mol/nm", "force") == pytest.approx(ase_units.kJ / ase_units.mol / 10, rel=1e-15)
    assert quantity("2 fs", "time") == pytest.approx(2 * ase_units.fs, rel=1e-15)
    assert quantity("1 /ps", "rate") == pytest.approx(1 / (1000 * ase_units.fs), rel=1e-15)


def test_thermal_energy_at_300_kelvin_in_kcal_per_mol():
    assert thermal_energy(300.0) / KCAL_PER_MOL == pytest.approx(0.0019872041 * 300, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "dimension", "hint"),
    [("kcal", "energy", "kcal/mol"), ("pm", "length", "unknown length unit"), ("kcal/mol", "force", "kcal/mol/Å")],
)
def test_unknown_unit_is_named_with_the_nearest(name, dimension, hint):
    with pytest.raises(InputError, match=hint):
        unit(name, dimension)


@pytest.mark.parametrize("temperature", [0.0, -3.0, float("nan")])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(InputError, match="temperature"):
        thermal_energy(temperature)


@pytest.mark.parametrize("temperature", [None, "300"])
def test_a_temperature_that_is_no_number_is_one_sentence(temperature):
    with pytest.raises(InputError, match=f"must be a number, positive and in K, not {temperature}"):
        thermal_energy(temperature)


@given(st.floats(1e-6, 1e6), st.sampled_from(["fs", "ps", "ns"]))
def test_a_quantity_is_number_times_unit(number, name):
    assert quantity(f"{number!r} {name}", "time") == pytest.approx(number * unit(name, "time"), rel=1e-12)


@given(st.text(max_size=12))
def test_free_text_is_a_quantity_or_one_clear_error(text):
    try:
        assert isinstance(quantity(text, "time"), float)
    except InputError as error:
        assert str(error)  # noqa: PT017 - either outcome is right, no other exception is
