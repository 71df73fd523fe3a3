"""Everything that decides how trajectories become a molecule of a dataset."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ase_cg.beads.forcemap import FORCE_MAPS
from ase_cg.beads.resolution import Resolution
from ase_cg.errors import hint
from ase_cg.files import existing_file, fingerprint
from ase_cg.keys import NAME_PATTERN
from ase_cg.settings import Section, Time, read_yaml, relative, validated
from ase_cg.units import quantity

FILE_FIELDS = ("trajectories", "forces", "weights")
ConstraintSource = Literal["detect", "hbonds", "none"]


def _force_map(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if text not in FORCE_MAPS and Path(text).suffix != ".npy":
        raise ValueError(f"it is a name or a .npy file with a matrix; {hint(str(value), FORCE_MAPS)}")
    return text


ForceMapChoice = Annotated[str, BeforeValidator(_force_map)]


class MappingSettings(Section):
    """How trajectories are read and mapped.

    Attributes
    ----------
    trajectories : list of Path
        Files of :class:`ase_cg.data.importers.Source`; each is a trajectory of its own.
    forces : list of Path
        ``.npy`` files with the forces of ``.npy`` trajectories, one for each.
    weights : list of Path
        ``.npy`` or text files with the weight of each frame, one for each trajectory.
    embeddings : Path or None
        ``.npy`` file with the bead types of a published data set, to be checked against the topology.
    group : str or None
        Which molecule of a file in mlcg's layout.
    resolution : str, list of str, or dict
        See :class:`ase_cg.beads.resolution.Resolution`.
    force_map : {"optimal", "constraint_sum", "slice"} or str
        A name, or a ``.npy`` file with a matrix.
    constraints : {"detect", "hbonds", "none"}
        Which atoms rigid constraints tie together: found in the data, all bonds to hydrogen, or none.
    ridge : float
        Of the optimal force map, in (eV/Å)².
    no_forces : bool
        Leave recorded forces out.
    keep_broken : bool
        Do not put molecules together that the periodic box has cut.
    length_unit, force_unit : str or None
        Of files that do not declare theirs.
    trajectory_length : int or None
        A file is several trajectories of so many frames, one after the other.
    trajectory_starts : Path, list of int, or None
        ``.npy`` file with the number of the first frame of each trajectory in the file, counted from 0, for
        trajectories that differ in length.
    frame_interval : str or None
        Time between neighbouring frames, with its unit.
    """

    model_config = ConfigDict(title="the settings of a mapping")

    trajectories: list[Path] = []
    forces: list[Path] = []
    weights: list[Path] = []
    embeddings: Path | None = None
    group: str | None = None
    topology: Path | None = None
    resolution: str | list[str] | dict[str, Any] = "calpha"
    temperature: float | None = Field(default=None, gt=0)
    force_map: ForceMapChoice = "optimal"
    constraints: ConstraintSource = "detect"
    ridge: float = Field(default=0.0, ge=0)
    no_forces: bool = False
    keep_broken: bool = False
    length_unit: str | None = None
    force_unit: str | None = None
    trajectory_length: int | None = Field(default=None, ge=1)
    trajectory_starts: Path | list[int] | None = None
    frame_interval: Time | None = None

    @field_validator("frame_interval")
    @classmethod
    def _positive(cls, interval: str | None) -> str | None:
        if interval is not None and not quantity(interval, "time") > 0:
            raise ValueError("it must be a positive time")
        return interval

    @model_validator(mode="after")
    def _one_file_each(self) -> Self:
        for field in ("forces", "weights"):
            given = len(getattr(self, field))
            if given and given != len(self.trajectories):
                raise ValueError(f"has {given} files of {field} for {len(self.trajectories)} trajectories")
        return self

    @model_validator(mode="after")
    def _one_division(self) -> Self:
        if self.trajectory_starts is None:
            return self
        if self.trajectory_length is not None:
            raise ValueError("trajectory_length and trajectory_starts divide a file twice; leave one out")
        if len(self.trajectories) > 1:
            raise ValueError(
                f"trajectory_starts divides one file, not {len(self.trajectories)}; each file is a trajectory already"
            )
        return self

    @property
    def force_map_file(self) -> Path | None:
        """The file of a force map of the user's own."""
        return None if self.force_map in FORCE_MAPS else Path(self.force_map)

    def relative_to(self, folder: Path) -> Self:
        """Return the settings with their paths taken relative to a folder."""
        update: dict[str, Any] = {
            field: [folder / path.expanduser() for path in getattr(self, field)] for field in FILE_FIELDS
        }
        for field in ("embeddings", "topology"):
            update[field] = relative(getattr(self, field), folder)
        if isinstance(self.trajectory_starts, Path):
            update["trajectory_starts"] = relative(self.trajectory_starts, folder)
        if self.force_map_file is not None:
            update["force_map"] = str(folder / self.force_map_file.expanduser())
        if isinstance(self.resolution, str) and Path(self.resolution).suffix in {".yaml", ".yml"}:
            update["resolution"] = str(folder / self.resolution)
        return self.model_copy(update=update)


class MoleculeSettings(MappingSettings):
    """One molecule of a dataset: its trajectories, and how they are mapped; `name` is its name there."""

    model_config = ConfigDict(title="a molecule")

    name: str = Field(default="molecule", pattern=NAME_PATTERN)
    trajectories: list[Path] = Field(min_length=1)
    topology: Path
    temperature: float = Field(gt=0)

    @property
    def files(self) -> list[Path]:
        """All input files."""
        chosen = (self.embeddings, self.force_map_file, self.trajectory_starts)
        optional = [path for path in chosen if isinstance(path, Path)]
        return [*self.trajectories, *self.forces, *self.weights, *optional, self.topology]

    def record(self) -> dict[str, Any]:
        """Return everything that decides the mapped molecule, JSON-safe; files by name and content."""
        described = self.model_dump(mode="json", exclude={"name"})
        if self.frame_interval is None:  # as in datasets of programs that did not know it
            del described["frame_interval"]
        if self.trajectory_starts is None:
            del described["trajectory_starts"]
        elif isinstance(self.trajectory_starts, Path):
            described["trajectory_starts"] = fingerprint(self.trajectory_starts)
        else:
            numbers = ",".join(str(start) for start in self.trajectory_starts)
            described["trajectory_starts"] = {
                "count": len(self.trajectory_starts),
                "sha256": hashlib.sha256(numbers.encode()).hexdigest(),
            }
        for field in FILE_FIELDS:
            described[field] = [fingerprint(path) for path in getattr(self, field)]
        for field in ("topology", "embeddings"):
            path = getattr(self, field)
            described[field] = None if path is None else fingerprint(path)
        if self.force_map_file is not None:
            described["force_map"] = fingerprint(existing_file(self.force_map_file, "force map"))
        spec = Resolution.of(self.resolution).spec
        described["resolution"] = list(spec) if isinstance(spec, tuple) else spec
        return described


class MoleculeList(Section):
    """A YAML file with several molecules for one dataset; paths in it are relative to the file."""

    model_config = ConfigDict(title="a list of molecules")

    molecules: list[MoleculeSettings] = Field(min_length=1)

    @field_validator("molecules")
    @classmethod
    def _each_name_once(cls, molecules: list[MoleculeSettings]) -> list[MoleculeSettings]:
        names = [molecule.name for molecule in molecules]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two molecules are called {twice[0]!r}; give each a name of its own")
        return molecules


def read_molecules(path: str | os.PathLike[str]) -> list[MoleculeSettings]:
    """Read a YAML file with the key ``molecules``.

    Raises
    ------
    InputError
        If it is missing or no YAML, or a key or a value is wrong, naming it.
    """
    found = validated(MoleculeList, read_yaml(path, "list of molecules"), f"list of molecules {os.fspath(path)}")
    return [molecule.relative_to(Path(path).parent) for molecule in found.molecules]
