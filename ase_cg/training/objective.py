"""The objective: the network is fitted to what the priors leave of the labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import lightning
import torch
from torch import Tensor, nn

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph, concatenate, topology_graph
from ase_cg.labels.base import LabelSource
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.models.base import Backbone, energy_and_forces
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.averages import WeightedAverage
from ase_cg.training.distributed import on_first_process, process_count
from ase_cg.training.frames import Batch
from ase_cg.training.schedule import schedules, warn_of_warmup
from ase_cg.training.training_settings import TrainingSection
from ase_cg.units import KCAL_PER_MOL

TRAIN, VALIDATION, TEST = range(3)  # what noise is drawn for
REPORTED = ("train_loss", "validation_loss", "test_loss", "label_variance", "label_variance_theory")


class Evaluated(NamedTuple):
    """Sums over frames by weight, in (kcal/mol/Å)².

    Attributes
    ----------
    squares : Tensor
        Squared components of what the model misses of the labels.
    label_squares : Tensor
        Squared components of the labels.
    components : Tensor
        Components by weight.
    """

    squares: Tensor
    label_squares: Tensor
    components: Tensor


class ForceMatching(lightning.LightningModule):
    """L = ⟨‖F_network(y) + F_prior(y) − f‖²⟩/(3N), reported in (kcal/mol/Å)².

    Parameters
    ----------
    backbone : Backbone
        Trained here.
    priors : PriorSet
        Fitted to positions as the labels give them; fixed.
    labels : sequence of LabelSource
        Of each molecule.
    topologies : sequence of BeadTopology
        Of each molecule.
    vocabulary : tuple of str
    settings : TrainingSection
    seed : int
        Of the noise of training frames; that of the others has the seed of the settings.

    Attributes
    ----------
    loss_unit : str
    recorded : tuple of str
        Averages over training frames that are kept with each epoch.
    """

    loss_unit = "(kcal/mol/Å)²"
    recorded = ("label_variance", "label_variance_theory")

    def __init__(
        self,
        backbone: Backbone,
        priors: PriorSet,
        labels: Sequence[LabelSource],
        topologies: Sequence[BeadTopology],
        vocabulary: tuple[str, ...],
        settings: TrainingSection,
        seed: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.priors = priors
        self.labels = nn.ModuleList(labels)
        self.averages = nn.ModuleDict({name: WeightedAverage() for name in REPORTED})
        self._variances = [label.variance() / KCAL_PER_MOL**2 for label in labels]
        self._topologies = tuple(topologies)
        self._vocabulary = vocabulary
        self._settings = settings
        self._seed = seed
        self._graphs: dict[tuple[int, int], BeadGraph] = {}

    def _graph(self, molecule: int, positions: Tensor) -> BeadGraph:
        key = molecule, len(positions)
        if key not in self._graphs:
            graph = topology_graph(self._topologies[molecule], self._vocabulary, len(positions))
            self._graphs[key] = graph.to(positions.device, positions.dtype)
        return self._graphs[key]._replace(positions=positions.reshape(-1, 3))

    def evaluate(self, batch: Batch, key: tuple[int, ...], *, training: bool) -> Evaluated:
        """Evaluate the frames of a batch that are this process's.

        Parameters
        ----------
        batch : Batch
        key : tuple of int
            Of the noise; a frame's noise depends on it, the molecule and the frame's number only.
        training : bool
            Keep what the gradient of the loss needs.
        """
        graphs, targets, weights = [], [], []
        for part in batch.parts:
            noise = FrameNoise((*key, part.molecule), part.draws)
            y, target = self.labels[part.molecule](part.coordinates, part.forces, noise)
            graphs.append(self._graph(part.molecule, y))
            targets.append(target.reshape(-1, 3))
            weights.append(part.weights.repeat_interleave(y.shape[1])[:, None])
        graph = graphs[0] if len(graphs) == 1 else concatenate(graphs)
        _, prior = energy_and_forces(self.priors, graph)
        _, network = energy_and_forces(self.backbone, graph, training=training)
        target, weight = torch.cat(targets), torch.cat(weights)
        residual = network + prior - target
        return Evaluated(
            squares=(weight * residual * residual).sum() / KCAL_PER_MOL**2,
            label_squares=(weight * target * target).sum() / KCAL_PER_MOL**2,
            components=3 * weight.sum(),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch with fresh noise in every epoch."""
        found = self.evaluate(batch, (self._seed, TRAIN, self.current_epoch), training=True)
        self._add("train_loss", found.squares, found.components, batch_idx)
        self._add("label_variance", found.label_squares, found.components, batch_idx)
        sizes = [part.coordinates[0].numel() * part.weights.sum() for part in batch.parts]
        expected = [self._variances[part.molecule] * size for part, size in zip(batch.parts, sizes, strict=True)]
        self._add("label_variance_theory", torch.stack(expected).sum(), torch.stack(sizes).sum(), batch_idx)
        # Gradients are averaged over the processes; the batch's loss is the sum of their shares.
        return found.squares * (process_count() / batch.components)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch with the same noise in every epoch and for all seeds of networks, which are compared."""
        found = self.evaluate(batch, (self._settings.seed, VALIDATION, 0), training=False)
        self._add("validation_loss", found.squares, found.components, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch of frames that neither training nor the choice of a checkpoint has seen."""
        found = self.evaluate(batch, (self._settings.seed, TEST, 0), training=False)
        self._add("test_loss", found.squares, found.components, batch_idx)

    def _add(self, name: str, total: Tensor, weight: Tensor, batch_idx: int) -> None:
        average = cast(WeightedAverage, self.averages[name])
        average.update(total.detach(), weight)
        if batch_idx == 0:  # Lightning evaluates it at the end of the epoch; to tell it at every step costs 1 ms
            self.log(name, average, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        """AdamW with the recipe's schedule of the learning rate."""
        settings = self._settings
        optimizer = torch.optim.AdamW(
            self.backbone.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        on_first_process(lambda: warn_of_warmup(settings, steps))
        return [optimizer], schedules(optimizer, settings, steps)
