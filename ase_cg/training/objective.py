"""The objective: the network is fitted to what the priors leave of the labels."""

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph, concatenate, topology_graph
from ase_cg.labels.base import LabelSource
from ase_cg.models.base import Backbone, energy_and_forces
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.frames import Batch
from ase_cg.training.recipe import TrainingSection
from ase_cg.units import KCAL_PER_MOL


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
    """

    def __init__(
        self,
        backbone: Backbone,
        priors: PriorSet,
        labels: Sequence[LabelSource],
        topologies: Sequence[BeadTopology],
        vocabulary: tuple[str, ...],
        settings: TrainingSection,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.priors = priors
        self.labels = nn.ModuleList(labels)
        self._topologies = tuple(topologies)
        self._vocabulary = vocabulary
        self._settings = settings
        self._graphs: dict[tuple[int, int], BeadGraph] = {}

    def _graph(self, molecule: int, positions: Tensor) -> BeadGraph:
        key = molecule, len(positions)
        if key not in self._graphs:
            graph = topology_graph(self._topologies[molecule], self._vocabulary, len(positions))
            self._graphs[key] = graph.to(positions.device, positions.dtype)
        return self._graphs[key]._replace(positions=positions.reshape(-1, 3))

    def loss(self, batch: Batch, generator: torch.Generator, *, training: bool) -> Tensor:
        """Return the mean squared force residual of a batch in (eV/Å)²."""
        graphs, targets = [], []
        for part in batch:
            y, target = self.labels[part.molecule](part.coordinates, part.forces, generator)
            graphs.append(self._graph(part.molecule, y))
            targets.append(target.reshape(-1, 3))
        graph = graphs[0] if len(graphs) == 1 else concatenate(graphs)
        _, prior = energy_and_forces(self.priors, graph)
        _, network = energy_and_forces(self.backbone, graph, training=training)
        residual = network + prior - torch.cat(targets)
        mean_square: Tensor = (residual * residual).mean()
        return mean_square

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Evaluate a batch with noise of its own, which depends on the seed and the step only."""
        loss = self.loss(batch, self._generator(0, self.global_step), training=True)
        self._report("train_loss", loss, batch)
        return loss / KCAL_PER_MOL**2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch with the same noise in every epoch."""
        loss = self.loss(batch, self._generator(1, batch_idx), training=False)
        self._report("validation_loss", loss, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate a batch of frames that neither training nor the choice of a checkpoint has seen."""
        loss = self.loss(batch, self._generator(2, batch_idx), training=False)
        self._report("test_loss", loss, batch)

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        sequence = np.random.SeedSequence([self._settings.seed, purpose, number])
        seed = int(sequence.generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device=self.device).manual_seed(seed)

    def _report(self, name: str, loss: Tensor, batch: Batch) -> None:
        value = loss.detach() / KCAL_PER_MOL**2
        self.log(name, value, batch_size=sum(len(part.coordinates) for part in batch), on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        """AdamW, its learning rate falling as a cosine to the final one over all steps."""
        settings = self._settings
        optimizer = torch.optim.AdamW(
            self.backbone.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer,
            T_max=max(1, int(self.trainer.estimated_stepping_batches)),
            eta_min=min(settings.final_learning_rate, settings.learning_rate),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
