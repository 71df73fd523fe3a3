"""The objectives of flows: matching velocities on paths between noise and data, and maximum likelihood."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from ase_cg.flows.base import ConditionalFlow
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.field import Normal, VectorField, centered
from ase_cg.flows.fields import make_field
from ase_cg.flows.matching import matched, matched_pair
from ase_cg.flows.orientation import rotations
from ase_cg.flows.stiff_modes import StiffModes
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.seeds import torch_seed
from ase_cg.training.averages import WeightedAverage
from ase_cg.training.distributed import process_count
from ase_cg.training.frames import Batch
from ase_cg.training.kernel_settings import KernelSection
from ase_cg.training.schedule import schedules
from ase_cg.training.training_settings import TrainingSection

TRAIN, VALIDATION, TEST = range(10, 13)  # what noise is drawn for: other than a model's


class FlowObjective(lightning.LightningModule, ABC):
    """What a conditional flow is fitted by.

    Parameters
    ----------
    flow : ConditionalFlow
        Trained here.
    types : sequence of Tensor
        Of the beads of each molecule.
    settings : TrainingSection
    seed : int
        Of the noise.
    """

    loss_unit: str
    recorded: tuple[str, ...] = ()

    def __init__(self, flow: ConditionalFlow, types: Sequence[Tensor], settings: TrainingSection, seed: int) -> None:
        super().__init__()
        self.flow = flow
        self.averages = nn.ModuleDict({f"{part}_loss": WeightedAverage() for part in ("train", "validation", "test")})
        self._types = tuple(types)
        self._settings = settings
        self._seed = seed

    @abstractmethod
    def losses(self, x: Tensor, types: Tensor, normal: Normal, earlier: Tensor | None = None) -> Tensor:
        """Return the loss of each frame, summed over its components, shape (B,).

        Parameters
        ----------
        x, earlier : Tensor, shape (B, N, 3)
            Frames, and for flows of transitions those one lag before, in Å.
        types : Tensor of int64, shape (N,)
        normal : callable
            Draws all that is random.
        """

    def evaluate(self, batch: Batch, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the losses summed over this process's frames, and their components."""
        losses, components = [], []
        for part in batch.parts:
            normal = FrameNoise((self._seed, *key, part.molecule), part.draws).normal
            types = self._types[part.molecule].to(part.coordinates.device)
            losses.append((part.weights * self.losses(part.coordinates, types, normal, part.earlier)).sum())
            components.append(part.weights.sum() * 3 * (part.coordinates.shape[1] - 1))
        return torch.stack(losses).sum(), torch.stack(components).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch with fresh noise in every epoch."""
        losses, components = self.evaluate(batch, (TRAIN, self.current_epoch))
        self._add("train_loss", losses, components, batch_idx)
        # Gradients are averaged over the processes; the batch's loss is the sum of their shares.
        return losses * (process_count() / batch.components)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch with the same noise in every epoch."""
        self._add("validation_loss", *self.evaluate(batch, (VALIDATION, 0)), batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch that neither training nor the choice of a checkpoint has seen."""
        self._add("test_loss", *self.evaluate(batch, (TEST, 0)), batch_idx)

    def _add(self, name: str, total: Tensor, weight: Tensor, batch_idx: int) -> None:
        average = cast(WeightedAverage, self.averages[name])
        average.update(total.detach(), weight)
        if batch_idx == 0:
            self.log(name, average, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        """Adam with the schedule of the settings."""
        settings = self._settings
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=settings.learning_rate)
        return [optimizer], schedules(optimizer, settings, int(self.trainer.estimated_stepping_batches))


class FlowMatching(FlowObjective):
    """L = ⟨‖v(t, y) − (x₁ − x₀)‖²⟩ over (σ_n² + σ_p²)(3N − 3): 1 for a field that is zero.

    Of transitions ⟨‖v(t, y, z) − (x − z − x₀)‖²⟩ over σ_p²(3N − 3): about 2 for a field that is zero. Most of it cannot
    be learned, because paths cross. The flow is a continuous one, whose field is trained.
    """

    loss_unit = "of the noise's variance"

    def losses(self, x: Tensor, types: Tensor, normal: Normal, earlier: Tensor | None = None) -> Tensor:
        """Return what the field misses of velocities on paths, squared."""
        flow = cast(ContinuousFlow, self.flow)
        widths = {"prior_std": flow.prior_std, "path_std": flow.path_std}
        field: VectorField = flow.field
        if earlier is None:
            time, y, velocity = matched(x, normal, noise_std=flow.noise_std, **widths)
        else:
            turned, z = flow.pair(x, earlier, normal)
            time, y, velocity = matched_pair(turned, z, normal, **widths)
            field = field.given(z)
        missed: Tensor = (field(time, y, types) - velocity).square().sum((1, 2))
        return missed / flow.width**2


class MaximumLikelihood(FlowObjective):
    """L = −⟨ln k(x, w | z)⟩ of rotated frames over 3N − 3, of a coupling flow; w ~ N(0, 1) are velocities."""

    loss_unit = "nats a component"

    def losses(self, x: Tensor, types: Tensor, normal: Normal, earlier: Tensor | None = None) -> Tensor:
        """Return the negative logarithm of the likelihood."""
        flow = cast(CouplingFlow, self.flow)
        turn = rotations(normal(x[:, 0, :1].expand(-1, 4))).transpose(1, 2)
        if earlier is None:
            turned = centered(x) @ turn
            z = flow.add_noise(turned, normal)
        else:
            turned, z = flow.pair(x @ turn, earlier @ turn, normal)
        return -flow.joint_log_prob(turned, normal(turned), z, types)


def make_objective(
    kernel: KernelSection,
    types: Sequence[Sequence[int]],
    n_types: int,
    settings: TrainingSection,
    displacement_std: float | None = None,
    modes: StiffModes | None = None,
) -> FlowObjective:
    """Make the flow that a recipe names, and what it is trained by.

    Parameters
    ----------
    kernel : KernelSection
    types : sequence of sequence of int
        Of the beads of each molecule.
    n_types : int
    settings : TrainingSection
        Of the flow.
    displacement_std : float, optional
        Of transitions, in Å: what they begin with unless the recipe says it.
    modes : StiffModes, optional
        Of coupling flows that begin with harmonic bonds and angles, by type.
    """
    beads = [torch.tensor(each) for each in types]
    moved = kernel.prior_std or displacement_std
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(settings.seed))
        if kernel.family == "coupling":
            coupling = CouplingFlow(
                n_types,
                noise_std=kernel.conditioning_std if moved is None else moved,
                n_layers=kernel.coupling_layers,
                n_blocks=kernel.blocks,
                embedding=kernel.embedding,
                length_scales=kernel.length_scales,
                modes=modes,
            )
            return MaximumLikelihood(coupling, beads, settings, settings.seed)
        sizes = {"features": kernel.features, "n_layers": kernel.layers}
        field = make_field(kernel.field, n_types, conditional=kernel.lag is not None, **sizes)
    flow = ContinuousFlow(
        field,
        noise_std=kernel.conditioning_std if displacement_std is None else 0.0,
        prior_std=kernel.start_std if moved is None else moved,
        path_std=kernel.path_std,
        steps=kernel.steps,
        nodes=kernel.nodes,
        solver=kernel.solver,
        tolerance=kernel.tolerance,
        n_probes=kernel.probes,
    )
    return FlowMatching(flow, beads, settings, settings.seed)
