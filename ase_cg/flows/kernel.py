"""A trained flow and the molecules it knows, as one file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file, save_tensors
from ase_cg.flows.base import ConditionalFlow
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.fields import describe_field, described_field

FORMAT, VERSION = "ase-cg flow", 1
METADATA_KEY = "ase_cg"
MADE_AGAIN = "if `ase-cg train` made it, delete it, and give the same command again"


class FlowKernel:
    """A conditional flow with the bead types of the molecules it was trained on.

    Parameters
    ----------
    flow : ConditionalFlow
    types : mapping of str to sequence of int
        Of each molecule, one type a bead.
    temperature : float
        Of the data, in K.
    lag : str, optional
        Of a kernel of transitions, a time with its unit.
    provenance : mapping
        Where it comes from, JSON-safe.
    """

    def __init__(
        self,
        flow: ConditionalFlow,
        types: Mapping[str, Sequence[int]],
        *,
        temperature: float,
        lag: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.flow = flow
        self.types = {name: tuple(beads) for name, beads in types.items()}
        self.temperature, self.lag = temperature, lag
        self.provenance = dict(provenance or {})

    def types_of(self, molecule: str) -> Tensor:
        """Return the types of a molecule's beads, shape (N,).

        Raises
        ------
        InputError
            If the flow was not trained on it.
        """
        if molecule not in self.types:
            raise InputError(
                f"the flow was trained on {', '.join(self.types)}, and not on molecule {molecule!r}: train one on it"
            )
        return torch.tensor(self.types[molecule])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the kernel as one ``.safetensors`` file.

        Raises
        ------
        InputError
            If the file exists and `overwrite` is false.
        """
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            **_described(self.flow),
            "types": self.types,
            "temperature": self.temperature,
            **({} if self.lag is None else {"lag": self.lag}),
            "units": {"length": "Å", "temperature": "K"},
            "provenance": self.provenance,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.flow.state_dict().items()}
        save_tensors(path, tensors, {METADATA_KEY: json.dumps(metadata)}, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a kernel; nothing in the file is executed, and its parameters want no gradient.

        Raises
        ------
        InputError
            If the file is missing, truncated, no flow of ours, or of another version.
        """
        from safetensors import SafetensorError, safe_open

        found = existing_file(path, "flow")
        try:
            with safe_open(found, framework="pt") as file:
                data = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{found} is no safetensors file or is truncated ({reason(error)}); {MADE_AGAIN}"
            ) from error
        _check_format(data, found)
        try:
            with torch.random.fork_rng(devices=[]):  # first weights are drawn, and overwritten below
                flow = _made(data)
            dtype = next(iter(tensors.values())).dtype
            flow.to(dtype).load_state_dict(tensors)
            known = {"temperature": data["temperature"], "lag": data.get("lag"), "provenance": data["provenance"]}
            kernel = cls(flow, data["types"], **known)
        except (KeyError, TypeError, RuntimeError, StopIteration) as error:
            raise InputError(f"{found} is damaged ({reason(error)}); {MADE_AGAIN}") from error
        flow.requires_grad_(requires_grad=False)
        return kernel


def bead_types(topologies: Mapping[str, BeadTopology], *, distinct: bool) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the types of each molecule's beads, and how many types there are.

    With `distinct` every bead of every molecule is a type of its own, so that a field over all pairs knows which are
    bonded; otherwise beads of one name share a type, in all molecules.
    """
    if distinct:
        found, count = {}, 0
        for name, topology in topologies.items():
            found[name] = tuple(range(count, count + topology.n_beads))
            count += topology.n_beads
        return found, count
    names = sorted({bead for topology in topologies.values() for bead in topology.names})
    number = {bead: index for index, bead in enumerate(names)}
    shared = {name: tuple(number[bead] for bead in topology.names) for name, topology in topologies.items()}
    return shared, len(names)


def _described(flow: ConditionalFlow) -> dict[str, Any]:
    """Return what :func:`_made` makes a flow of the same shape from."""
    if isinstance(flow, CouplingFlow):
        return {"kernel": "coupling", "settings": flow.settings()}
    if isinstance(flow, ContinuousFlow):
        return {"kernel": "cnf", "settings": flow.settings(), "field": describe_field(flow.field)}
    raise InputError("only coupling flows and continuous flows can be saved")


def _made(data: dict[str, Any]) -> ConditionalFlow:
    if data["kernel"] == "coupling":
        return CouplingFlow(**data["settings"])
    return ContinuousFlow(described_field(data["field"]), **data["settings"])


def _check_format(data: Any, path: Path) -> None:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(
            f"{path} is a safetensors file but no flow of ase-cg; `ase-cg train` with labels: flow makes one"
        )
    if data.get("version") != VERSION:
        raise InputError(f"{path} is a flow of version {data.get('version')}, this program reads version {VERSION}")
