"""The share that one rank has of a batch."""

from dataclasses import dataclass


@dataclass
class Share:
    """Which samples of the batch of all ranks a network computes with; set before each step.

    Attributes:
        first: Number of the first of them within the whole batch.
        of: Number of samples of the whole batch; 0 where the network has all of them, however many it is given.
    """

    first: int = 0
    of: int = 0
