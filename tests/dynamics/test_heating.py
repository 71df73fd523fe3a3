"""Time steps that are too large are found out early, with a number to try."""

import numpy as np
from ase import units

from ase_cg import ReplicaSimulation
from ase_cg.dynamics.heating import HeatingWatch

FS = units.fs
STIFF = 2 * np.pi / np.sqrt(8 / 12) / FS  # period in fs of the dimer's bond


def watched(model, time_step, **options):
    start = np.zeros((20, 2, 3))
    start[:, 1, 0] = 3.0
    options = {"friction": 1 / (1000 * FS), "seed": 1, "dtype": "float64"} | options
    return ReplicaSimulation(model, start, time_step=time_step * FS, **options)


def test_a_step_too_large_for_the_fastest_motion_is_told_at_the_start(dimer_model):
    allowed = STIFF / (2 * np.pi)
    assert HeatingWatch(watched(dimer_model, 1.1 * allowed), constant_energy=False).first_look() is None
    step = 1.3 * allowed
    assert HeatingWatch(watched(dimer_model, step), constant_energy=False).first_look() == (
        f"the time step of {step:.3g} fs is too large for the fastest motion of the start: try {allowed:.2g} fs"
    )


def test_heat_is_told_where_the_step_is_large_and_not_where_the_start_was_strained(dimer_model):
    allowed = STIFF / (2 * np.pi)
    for time_step, told in ((1.1 * allowed, True), (0.3 * allowed, False)):
        simulation = watched(dimer_model, time_step)
        watch = HeatingWatch(simulation, constant_energy=False)
        arrays, text = simulation.save_state()
        arrays["velocities"] *= 3.0
        simulation.load_state(arrays, text.replace('"steps_done": 0', '"steps_done": 200'))
        message = watch.look()
        assert (message is not None) == told
        if message:
            assert message.startswith("after 200 steps the beads are ")
            assert message.endswith(f"try {allowed:.2g} fs")
        assert watch.look() is None  # once


def test_energy_that_is_not_conserved_is_told(dimer_model):
    messages = {}
    for share in (0.2, 1.9):
        simulation = watched(dimer_model, share * STIFF / (2 * np.pi), integrator="verlet")
        watch = HeatingWatch(simulation, constant_energy=True)
        simulation.step(300)
        messages[share] = watch.look()
    assert messages[0.2] is None
    assert "the total energy is off by" in messages[1.9]
    assert "fs is too large: try" in messages[1.9]


def test_normal_dynamics_are_not_complained_of(dimer_model):
    simulation = watched(dimer_model, 5.0)
    watch = HeatingWatch(simulation, constant_energy=False)
    assert watch.first_look() is None
    for _ in range(8):
        simulation.step(200)
        assert watch.look() is None
