"""A network of layers one after another, and all that is done with it."""

from __future__ import annotations

import os

from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.data import Data, Samples
from gpunn.data.augmentation import Augmentation
from gpunn.nn.footprint import explained
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network, alone
from gpunn.saving.model_file import read_model, save_model
from gpunn.train.evaluator import Evaluation, check_samples, evaluate, recompute_statistics
from gpunn.train.history import History
from gpunn.train.optimizers import Optimizer
from gpunn.train.regularizers import Regularizer


class Sequential(Network):
    """Layers one after another.

    A layer that is part of another network stays there as it is: this one gets a layer of its own (see `layers`), which
    begins with the weights and statistics that the other has now. Copies and pickles of a network are independent of
    it and equal to the last bit; a pickle of one on a CUDA device is built on the CPU where there is none.

    Threads may share a network: each call waits until that of another thread has ended, a whole `fit` too. Calls that
    belong together, such as `forward` and `backward`, are kept together by `with network.lock:`.

    Args:
        layers: from input to output; one that needs no arguments may be given by its class or name, such as "relu".

    Attributes:
        layers: as they are in this network; set `trainable` of these.
        parameters: all weights and biases, after `build`.
        loss: the cost it was trained with, or None.
        task: what it was trained for: classes, 0 or 1 for each output, or numbers; None where it was not by `fit`.
        class_names: of the labels it was trained on.
        backend: where it lives, after `build`.
        epochs_trained, steps_trained: how far it was trained, by all calls of `fit`; `backward` counts as a step.
        lock: held by every call while it works; re-entrant.
        trained_on: how the inputs of its training were, or None; what it is asked is brought to the same form.
    """

    @alone
    def fit(
        self,
        data: Data | Samples | tuple[ArrayLike, ArrayLike] | ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        validation_data: Samples | tuple[ArrayLike, ArrayLike] | None = None,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        regularizer: Regularizer | None = None,
        epochs: int = 10,
        batch_size: int | None = None,
        device: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "float32",
        seed: int = 0,
        augmentation: Augmentation | None = None,
        recompute_statistics: bool = False,
        validate_every: int | None = None,
        patience: float | None = None,
        skip_bad_batches: bool = False,
        data_on: str = "auto",
        capture: bool = True,
        progress: bool = True,
    ) -> History:
        """Train on `data.train`, watching `data.validation`; `data.test` is never looked at.

        A network that is trained already goes on from its weights, and counts on: orders of epochs, dropout masks and
        augmentation are those that would come next, so N calls for one epoch each, with a constant rate and the same
        optimizer object (or none given), do the same to the last bit as one call for N epochs. A schedule begins anew
        in each call, and so do the steps and epochs of the history that it returns.

        A loss or an optimizer that needs no arguments may be given by its class or name, in whatever letters:
        "MeanSquaredError" or "mse", "adam".

        Args:
            data: a data set, samples, (x, y), or x; all but a data set are split into training and validation.
            y: targets for x. A network of one output takes (n,) as numbers to learn, one of several as classes.
            validation_data: samples or (x, y) to watch, in place of some that are held back.
            loss: the cost; left out, SoftmaxCrossEntropy for labels (BinaryCrossEntropy for two classes and one output)
                and MeanSquaredError for float targets. Rows of one 1 are labels for these; BinaryCrossEntropy takes
                them as several answers at once.
            optimizer: left out, SGD(0.1, momentum=0.9). The one of the last call goes on with what it remembered; any
                other begins afresh.
            regularizer: L1 or L2, or None.
            epochs: times that the whole training set is gone through.
            batch_size: samples of a minibatch; the last of an epoch may be shorter. Left out, 128; never more than
                there are.
            device: "auto", "cpu", "cuda", "cuda:N".
            dtype: "float32" or "float64".
            precision: "float32", or on a CUDA device "tf32", "bfloat16" or "float16" for products on the tensor
                cores, with weights, sums, costs and statistics in float32. Factors above 65,504 overflow in "float16".
            seed: of initial weights and the order of batches.
            augmentation: how training images are changed a little each time they are seen.
            recompute_statistics: let BatchNorm remember the statistics of the whole training set at the end, instead
                of running averages.
            validate_every: steps from one look at the validation set to the next; left out, a quarter of an epoch.
            patience: stop when the validation cost has not improved for so many epochs, and put back the weights
                that were best; None trains to the end and keeps the last weights.
            data_on: where the data lie meanwhile: "device"; "host", from where each piece is copied to the device while
                the one before is computed with; "auto" for the device where they fit. The numbers are the same.
            skip_bad_batches: go on without a batch that leads to numbers that are not finite, and count it in the
                history, instead of ending there.
            capture: whether a CUDA device replays the step as one graph; False runs it kernel by kernel, to debug.
            progress: whether to show how far it is.

        Returns:
            What was recorded.

        Raises:
            DivergenceError: cost or weights left the finite numbers, or the cost exploded; the last good weights are
                put back, and the message names the layer that was first.
            KeyboardInterrupt: the weights of the last record are put back. In a notebook the history so far is
                returned instead.
            DataError, ShapeError, OptionError, DeviceError: arguments that cannot be.
        """
        from gpunn.train.trainer import Trainer

        trainer = Trainer(
            self,
            data,
            y,
            validation_data=validation_data,
            loss=loss,
            optimizer=optimizer,
            regularizer=regularizer,
            epochs=epochs,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            precision=precision,
            seed=seed,
            augmentation=augmentation,
            recompute_statistics=recompute_statistics,
            validate_every=validate_every,
            patience=patience,
            skip_bad_batches=skip_bad_batches,
            data_on=data_on,
            capture=capture,
            progress=progress,
        )
        if trainer.placement:
            trainer.progress.say(f"data on {trainer.placement}")
        return trainer.run()

    @alone
    @explained
    def evaluate(
        self, samples: Samples | Data | tuple[ArrayLike, ArrayLike] | ArrayLike, y: ArrayLike | None = None
    ) -> Evaluation:
        """The figures of the network's task on samples, nothing learned: loss and accuracy, for regression RMSE and R².

        Args:
            samples: samples, (x, y), or x; of a data set, its test set.
            y: targets for x.

        Raises:
            DataError: nothing that can be evaluated on, or targets of another kind than those of the training.
            ShapeError: samples of another shape than the network was built for.
        """
        return evaluate(self, samples, y)

    @alone
    @explained
    def recompute_statistics(self, samples: Samples | Data) -> None:
        """Let every BatchNorm remember the statistics of these samples instead of its running averages.

        One pass: each layer is normalised by its batches, and their means and variances are put together.

        Args:
            samples: the training set.

        Raises:
            OptionError: the network has no BatchNorm.
        """
        recompute_statistics(self, samples)

    def check_samples(self, samples: Samples, loss: Loss | None = None) -> None:
        """Raise an error unless the network can take these inputs and give these targets; see `evaluator`."""
        check_samples(self, samples, loss)

    @alone
    def summary(self) -> str:
        """Layers, shapes of their outputs, parameters and memory, as a table."""
        from gpunn.nn.summary import summary

        return summary(self)

    @alone
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights to one safetensors file."""
        save_model(self, path)


def load_model(path: str | os.PathLike[str], device: str = "auto", batch_size: int = 32) -> Sequential:
    """Read a model that `save` wrote, ready to predict or to go on training.

    Args:
        path: of the file.
        device: "auto", "cpu", "cuda", "cuda:N".
        batch_size: samples of the largest batch.

    Raises:
        ModelFileError: the file is missing, damaged, or not one of gpunn's.
        MemoryShortageError: there is less memory than the network needs.
        OptionError, DeviceError: the device or the batch size cannot be.
    """
    return read_model(Sequential, path, device, batch_size)
