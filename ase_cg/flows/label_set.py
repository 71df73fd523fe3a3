"""Sets of labels that a flow makes of a dataset: written part by part, and in the end a dataset of their own."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.errors import InputError, reason
from ase_cg.files import file_hash, read_record, save_tensors, write_record
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.labelling import Labelled, label_batch
from ase_cg.progress import Progress
from ase_cg.units import thermal_energy

PART_FRAMES = 256  # of a part; what a killed process loses at most
LABELS = 20  # what noise is drawn for: other than that of trainings
SAME_TEMPERATURE = 0.5  # K
# Of the largest array of a batch: derivatives of messages by coordinates. Beyond, caches miss.
BATCH_BYTES = {"cpu": 2**24, "cuda": 2**29}
Frames = Mapping[str, NDArray[np.int64]]


class Share(NamedTuple):
    """Which of the processes that label together this one is."""

    rank: int = 0
    processes: int = 1


class LabelSet:
    """Labels of chosen frames of a dataset, being made.

    Parts of 256 frames lie in a folder beside the output as they are made; :meth:`make` leaves out those that are there
    already, and :meth:`gather` puts them together.

    Parameters
    ----------
    kernel_file : Path
        The flow.
    dataset : Path
    frames : mapping of str to ndarray of int
        Sorted frames of each molecule to label; one that comes several times has as many labels, each drawn anew.
    output : Path
        The label set, a dataset.
    seed : int
    lags : mapping of str to int, optional
        For a flow of transitions: of each molecule, how many frames its conditioning lies before a frame.
    at_frames : bool
        For a flow of transitions: label the frames themselves instead of samples.

    Raises
    ------
    InputError
        If the flow does not know a molecule, was trained at another temperature, or the parts belong to other labels.
    """

    def __init__(
        self,
        kernel_file: Path,
        dataset: Path,
        frames: Frames,
        output: Path,
        *,
        seed: int,
        lags: Mapping[str, int] | None = None,
        at_frames: bool = False,
    ) -> None:
        self.dataset, self.frames, self.output, self.seed = dataset, dict(frames), output, seed
        self.lags, self.at_frames = dict(lags or {}), at_frames
        self.kernel = FlowKernel.load(kernel_file)
        if (self.kernel.lag is None) == bool(self.lags):
            raise InputError(f"{kernel_file} is {'no' if self.lags else 'a'} flow of transitions: lags do not fit it")
        digest = hashlib.sha256()
        for name, chosen in self.frames.items():
            digest.update(name.encode() + chosen.astype("<i8").tobytes())
        self.identity: dict[str, Any] = {
            "flow_sha256": file_hash(kernel_file),
            "frames_sha256": digest.hexdigest(),
            "seed": seed,
            **({"lags": self.lags, "at_frames": at_frames} if self.lags else {}),
        }
        self._parts = output.with_name(f"{output.stem}-parts")
        with Dataset.open(dataset) as opened:
            self.identity["dataset_sha256"] = opened.hash()
            for name in self.frames:
                self.kernel.types_of(name)
                self._check_temperature(opened.molecules[name])
        # How often each has come before.
        self._repeats = {name: np.arange(len(own)) - np.searchsorted(own, own) for name, own in self.frames.items()}

    @property
    def finished(self) -> bool:
        """Whether the label set is there.

        Raises
        ------
        InputError
            If there is one of other frames or another flow, or a damaged one.
        """
        if not self.output.is_file():
            return False
        try:
            with Dataset.open(self.output) as found:
                identities = [m.mapping.get("labels", {}).get("identity") for m in found.molecules.values()]
        except InputError as error:
            raise InputError(f"{error}; delete it, and give the same command again") from error
        if any(identity != self.identity for identity in identities):
            raise InputError(
                f"{self.output} holds labels of another flow, dataset or choice of frames; delete it, and the same "
                "command makes labels of this flow, or choose another folder"
            )
        return True

    def _check_temperature(self, molecule: Molecule) -> None:
        trained, given = self.kernel.temperature, molecule.temperature
        if abs(trained - given) > SAME_TEMPERATURE:
            raise InputError(
                f"the flow was trained at {trained:g} K, and molecule {molecule.name!r} has {given:g} K: its labels "
                "would be forces of another free energy"
            )

    def prepare(self) -> None:
        """Make the folder of parts; parts of other labels in it are an :class:`InputError`."""
        record = self._parts / "labels.json"
        if record.is_file() and read_record(record) != self.identity:
            raise InputError(
                f"{self._parts} holds parts of other labels; delete it, and the same command makes labels of this "
                "flow, or choose another folder"
            )
        if not record.is_file():
            write_record(record, self.identity)

    def make(self, device: torch.device, *, share: Share | None = None, quiet: bool = False) -> None:
        """Make the parts that are missing, of several processes each its share."""
        share = share or Share()
        self.kernel.flow.to(device)
        tasks = list(self._tasks())
        missing = [task for task in tasks[share.rank :: share.processes] if not self._part(*task[:2]).is_file()]
        total = sum(len(chosen) for *_, chosen in tasks)
        dropped = 0
        with (
            Dataset.open(self.dataset) as opened,
            _workers(device) as workers,
            Progress("Labelling frames", total, quiet=quiet or share.rank > 0) as progress,
        ):
            progress.skip(total - sum(len(chosen) for *_, chosen in missing))
            for name, number, chosen in missing:
                repeats = self._repeats[name][number * PART_FRAMES :][: len(chosen)]
                found = self._label(opened.molecules[name], chosen, repeats, device, workers)
                self._write_part(self._part(name, number), found, chosen)
                dropped += int((~found.kept).sum())
                progress.advance(len(chosen), f"{dropped} dropped" if dropped else "")

    def _label(
        self,
        molecule: Molecule,
        frames: NDArray[np.int64],
        repeats: NDArray[np.int64],
        device: torch.device,
        workers: ThreadPoolExecutor,
    ) -> Labelled:
        """Label frames of a molecule in batches."""
        flow, types = self.kernel.flow, self.kernel.types_of(molecule.name).to(device)
        lag = self.lags.get(molecule.name, 0)

        def read(chosen: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(molecule.coordinates(chosen)).to(device, next(flow.parameters()).dtype)

        x, earlier = read(frames), read(frames - lag) if lag else None
        numbers, size = torch.from_numpy(frames + repeats * molecule.n_frames).to(device), self._batch(x)
        key = (self.seed, LABELS, list(self.frames).index(molecule.name))
        kT = thermal_energy(molecule.temperature)

        def labelled(start: int) -> Labelled:
            rows = slice(start, start + size)
            before = None if earlier is None else earlier[rows]
            return label_batch(
                flow, types, x[rows], key, numbers[rows], kT=kT, earlier=before, at_frames=self.at_frames
            )

        batches = list(workers.map(labelled, range(0, len(x), size)))
        return Labelled(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))

    def gather(self) -> dict[str, Any]:
        """Put the parts together, once all are made, and return :meth:`report`.

        Raises
        ------
        InputError
            If no frame of a molecule could be labelled, or a part is damaged.
        """
        if not self.finished:
            with Dataset.open(self.dataset) as source, create_dataset(self.output) as target:
                for name in self.frames:
                    self._gather_molecule(source.molecules[name], target)
        shutil.rmtree(self._parts, ignore_errors=True)
        return self.report()

    def report(self) -> dict[str, Any]:
        """Return of each molecule how many frames were labelled and dropped."""
        with Dataset.open(self.output) as found:
            return {name: molecule.mapping["labels"] for name, molecule in found.molecules.items()}

    def _batch(self, x: Tensor) -> int:
        frame_bytes = x.element_size() * self.kernel.flow.numbers_a_frame(x.shape[1])
        return max(1, BATCH_BYTES[x.device.type] // frame_bytes)

    def _tasks(self) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        for name, frames in self.frames.items():
            for number, start in enumerate(range(0, len(frames), PART_FRAMES)):
                yield name, number, frames[start : start + PART_FRAMES]

    def _part(self, name: str, number: int) -> Path:
        return self._parts / f"{name}-{number:06d}.safetensors"

    def _write_part(self, path: Path, found: Labelled, frames: NDArray[np.int64]) -> None:
        arrays = {
            "coordinates": found.coordinates,
            "forces": found.forces,
            "log_prob": found.log_prob,
            "frames": frames[found.kept],
        }
        save_tensors(path, {key: np.ascontiguousarray(array) for key, array in arrays.items()})

    def _read_parts(self, name: str) -> dict[str, NDArray[Any]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        found = []
        for task_name, number, _ in self._tasks():
            if task_name == name:
                path = self._part(name, number)
                try:
                    found.append(load_file(path))
                except (SafetensorError, OSError) as error:
                    raise InputError(
                        f"part {path} of the labels is missing or damaged ({reason(error)}); delete it, and start again"
                    ) from error
        return {key: np.concatenate([part[key] for part in found]) for key in found[0]}

    def _gather_molecule(self, source: Molecule, target: Any) -> None:
        arrays = self._read_parts(source.name)
        asked, frames = len(self.frames[source.name]), arrays["frames"]
        if not len(frames):
            raise InputError(
                f"molecule {source.name!r}: none of {asked} frames could be labelled, because likelihoods or labels "
                "are no numbers or too large, or samples flew away; train the flow longer (kernel.epochs), and look "
                "whether its widths are in Å"
            )
        weights = source.weights()
        record = {"identity": self.identity, "labelled": len(frames), "dropped": asked - len(frames)}
        with target.molecule(
            source.name,
            source.topology,
            temperature=source.temperature,
            resolution=source.resolution,
            force_map="flow",
            mapping={"labels": record},
            weighted=weights is not None,
        ) as writer:
            for trajectory in source.trajectories():
                rows = slice(*np.searchsorted(frames, [trajectory.start, trajectory.stop]))
                if rows.stop > rows.start:
                    own = None if weights is None else weights[frames[rows]]
                    writer.append(arrays["coordinates"][rows], arrays["forces"][rows], own)
                    writer.next_trajectory()
            writer.write_source(frames, arrays["log_prob"])


def _workers(device: torch.device) -> ThreadPoolExecutor:
    """Return threads that label batches side by side, each on one core: the steps of a batch are too small for more."""
    count = 1 if device.type == "cuda" else torch.get_num_threads()
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
