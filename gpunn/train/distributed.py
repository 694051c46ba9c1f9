"""Share batches among the ranks of a training, and check that all ranks agree."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.ranks import Ranks, world
from gpunn.data import Data
from gpunn.errors import DataError, DeviceError, GpunnError, OptionError
from gpunn.nn.network import Network

_LONGEST = 400  # bytes of a text that ranks exchange


def share_of(n: int, batch_size: int, ranks: Ranks) -> int:
    """Count a rank's share of n samples in batches; only the last batch may be short."""
    batches, rest = divmod(n, batch_size)
    full, last = ranks.share(batch_size), ranks.share(rest)
    return batches * (full[1] - full[0]) + last[1] - last[0]


def share_of_order(order: NDArray[np.integer], batch_size: int, ranks: Ranks) -> NDArray[np.integer]:
    """Return a rank's share of an epoch's order: its part of each batch, one after another."""
    whole = len(order) // batch_size * batch_size
    (first, end), (first_last, end_last) = ranks.share(batch_size), ranks.share(len(order) - whole)
    shares = order[:whole].reshape(-1, batch_size)[:, first:end].reshape(-1)
    return np.concatenate([shares, order[whole:][first_last:end_last]])


def first_text(ranks: Ranks, text: str) -> str:
    """Return, on all ranks, the first rank's text that is not empty; "" if all are."""
    if ranks.size == 1 or not ranks.any(bool(text)):
        return text
    mine = np.zeros(_LONGEST, np.uint8)
    given = np.frombuffer(text.encode()[:_LONGEST], np.uint8)
    mine[: len(given)] = given
    texts: list[str] = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in ranks.all_gather(mine)]
    return next(filter(None, texts))


def check_batch_size(batch_size: int, ranks: Ranks) -> None:
    """Raise OptionError for a batch with fewer samples than ranks."""
    if batch_size < ranks.size:
        mend = f"take a batch size of {ranks.size} or more, or start at most {batch_size}"
        raise OptionError(f"{ranks.size} ranks cannot share batches of {batch_size} samples: {mend}")


def check_same_devices(device: str, ranks: Ranks) -> None:
    """Raise DeviceError, on all ranks, if some compute on a CPU and others on GPUs."""
    is_host = device == "cpu"
    if ranks.any(is_host) and ranks.any(not is_host):
        mend = "start no more ranks on a machine than it has GPUs, or take --device cpu"
        raise DeviceError(f"some ranks have a GPU and others none: {mend}", mend)


def check_same_data(data: Data, ranks: Ranks) -> None:
    """Raise DataError, on all ranks, if their data differ."""
    if ranks.size > 1:
        parts = (samples and samples.sha256() for samples in (data.train, data.validation))
        if (other := _first_other(ranks, " ".join(map(str, parts)).encode())) is not None:
            mend = "let all ranks read the same files in the same way"
            raise DataError(f"the samples of rank {other} differ from those of rank 0: {mend}")


def check_same_weights(model: Network, when: str, ranks: Ranks | None = None) -> None:
    """Raise GpunnError, on all ranks, if their weights or statistics differ."""
    ranks = world() if ranks is None else ranks
    if ranks.size > 1:
        digest = b"".join(name.encode() + array.tobytes() for name, array in model.arrays().items())
        if (other := _first_other(ranks, digest)) is not None:
            mend = "make the same network and training on all ranks, and change weights on all or none"
            raise GpunnError(f"the weights of rank {other} differ from those of rank 0 {when}: {mend}")


def _first_other(ranks: Ranks, content: bytes) -> int | None:
    """Return the first rank whose content differs from that of rank 0, or None."""
    digests = ranks.all_gather(np.frombuffer(hashlib.sha256(content).digest(), np.uint8))
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    return int(others[0]) if len(others) else None
