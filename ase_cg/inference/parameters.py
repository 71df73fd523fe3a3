"""The numbers of an integrator as one tensor."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor


class Parameters:
    """The numbers of an integrator as one tensor, so that the compiled step takes one input for them.

    Parameters
    ----------
    integrator : dataclass
        The floats and tensors it is made of are its numbers; tensors of shape (R, 1, 1) differ among replicas.
        Constants it makes of them itself are made again within the compiled step.
    replicas : int
        R.
    device : torch.device
    """

    def __init__(self, integrator: Any, replicas: int, device: torch.device) -> None:
        self._integrator = integrator
        fields = {field.name: getattr(integrator, field.name) for field in dataclasses.fields(integrator) if field.init}
        self._values = {
            name: torch.as_tensor(value, dtype=torch.float64, device=device)
            for name, value in fields.items()
            if isinstance(value, float | Tensor)
        }
        self._differ = [name for name, value in self._values.items() if value.shape == (replicas, 1, 1)]

    @property
    def layout(self) -> list[Any]:
        """Names and shapes of the numbers, and which of them differ among replicas."""
        shapes = {name: [] if name in self._differ else list(value.shape) for name, value in self._values.items()}
        return [shapes, self._differ]

    def packed(self, start: int, chunk: int) -> Tensor:
        """Return the numbers of a chunk of replicas, its end filled up with its first replica's."""
        parts = []
        for name, value in self._values.items():
            own = value
            if name in self._differ:
                own = value[start : start + chunk]
                own = torch.cat([own, own[:1].expand(chunk - len(own), 1, 1)])
            parts.append(own.reshape(-1))
        return torch.cat(parts)

    def restored(self, numbers: Tensor, chunk: int) -> Any:
        """Return the integrator of a chunk of replicas with the numbers of a packed tensor."""
        values = {}
        start = 0
        for name, value in self._values.items():
            shape = (chunk, 1, 1) if name in self._differ else tuple(value.shape)
            size = math.prod(shape)
            values[name] = numbers[start : start + size].reshape(shape)
            start += size
        return dataclasses.replace(self._integrator, **values)
