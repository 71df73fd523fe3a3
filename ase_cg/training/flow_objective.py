"""The objective of a continuous flow: its field is fitted to velocities on paths between noise and data."""

from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.matching import matched
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.training.averages import WeightedAverage
from ase_cg.training.distributed import process_count
from ase_cg.training.frames import Batch
from ase_cg.training.schedule import schedules
from ase_cg.training.training_settings import TrainingSection

TRAIN, VALIDATION, TEST = range(10, 13)  # what noise is drawn for: other than a model's


class FlowMatching(lightning.LightningModule):
    """L = ⟨‖v(t, y) − (x₁ − x₀)‖²⟩ over (σ_n² + σ_p²)(3N − 3): 1 for a field that is zero.

    Most of it cannot be learned, because paths cross.

    Parameters
    ----------
    flow : ContinuousFlow
        Its field is trained here.
    types : sequence of Tensor
        Of the beads of each molecule.
    settings : TrainingSection
    seed : int
        Of the noise.
    """

    loss_unit = "of the noise's variance"
    recorded: tuple[str, ...] = ()

    def __init__(self, flow: ContinuousFlow, types: Sequence[Tensor], settings: TrainingSection, seed: int) -> None:
        super().__init__()
        self.flow = flow
        self.averages = nn.ModuleDict({f"{part}_loss": WeightedAverage() for part in ("train", "validation", "test")})
        self._types = tuple(types)
        self._settings = settings
        self._seed = seed

    def evaluate(self, batch: Batch, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the squares of what the field misses, summed over this process's frames, and their components."""
        flow, squares, components = self.flow, [], []
        scale = flow.noise_std**2 + flow.prior_std**2
        for part in batch.parts:
            normal = FrameNoise((self._seed, *key, part.molecule), part.draws).normal
            time, y, velocity = matched(
                part.coordinates, normal, noise_std=flow.noise_std, prior_std=flow.prior_std, path_std=flow.path_std
            )
            types = self._types[part.molecule].to(y.device)
            missed = (flow.field(time, y, types) - velocity).square().sum((1, 2))
            squares.append((part.weights * missed).sum() / scale)
            components.append(part.weights.sum() * 3 * (y.shape[1] - 1))
        return torch.stack(squares).sum(), torch.stack(components).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch with fresh noise in every epoch."""
        squares, components = self.evaluate(batch, (TRAIN, self.current_epoch))
        self._add("train_loss", squares, components, batch_idx)
        # Gradients are averaged over the processes; the batch's loss is the sum of their shares.
        return squares * (process_count() / batch.components)

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
