"""Train, evaluate, summarize, save and load a network of layers in sequence."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.data import Data, Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.class_weights import ClassWeight
from gpunn.files import StrPath
from gpunn.nn.locking import explains_shortage, locked
from gpunn.nn.losses import Loss
from gpunn.nn.replacing import with_last
from gpunn.nn.summary import summary, summary_html
from gpunn.reports.learning_rates import LearningRateCurve
from gpunn.saving.model_file import read_model
from gpunn.saving.onnx import require_onnx
from gpunn.saving.saveable import SaveableNetwork
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import Callback
from gpunn.train.custom_metrics import MetricList
from gpunn.train.evaluator import Evaluation, evaluate, recompute_statistics
from gpunn.train.history import History
from gpunn.train.lr_finder import HIGHEST, LOWEST, STEPS, Rising, try_rates
from gpunn.train.optimizers import Optimizer, Regularizer
from gpunn.train.report import Report, report_on
from gpunn.train.trainer import Trainer

# Attributes for the rest of the library, hidden from tab completion.
_INTERNAL = {"arranged", "backpropagate", "buffer_bytes", "build_with", "clock", "compile_ahead"}
_INTERNAL |= {"classes", "count_on", "factor_of", "input", "freezing_changed", "lay_out", "linked", "names_of_outputs"}
_INTERNAL |= {"optimizer_memory", "propagate", "stages_under", "tokens", "unbuild", "frozen", "held", "inherited"}


class Sequential(SaveableNetwork):
    """Train, evaluate and save a network of layers in sequence.

    A layer of another network stays part of it: this network gets its own copy (see `layers`), with the present
    weights and statistics. Copies and pickles of a network are independent of it and equal to the last bit. A pickle
    of a network on a CUDA device is built on the CPU if there is no such device.

    Threads may share a network: each call, even a whole `fit`, waits until the call of another thread has ended. Use
    `with network.lock:` around calls that belong together, such as `forward` and `backward`.

    Args:
        layers: Layers from input to output. A layer without arguments may be given by its class or name, "relu".

    Attributes:
        layers: Layers of this network; set `trainable` on these.
        parameters: All weights and biases, after `build`.
        loss: Loss of the last training, or None.
        task: Task of the last training: classes, binary outputs, or regression; None before `fit`.
        class_names: Names of the classes of the last training.
        backend: Device of the network, after `build`.
        epochs_trained, steps_trained: Totals over all calls of `fit`; `backward` counts as a step.
        lock: Re-entrant lock, held during every call.
        trained_on: Form of the training inputs, or None; later inputs are converted to it.
    """

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) - _INTERNAL)

    @locked
    def fit(
        self,
        data: Data | Samples | tuple[ArrayLike, ArrayLike] | ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        validation_data: Samples | tuple[ArrayLike, ...] | None = None,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        regularizer: Regularizer | None = None,
        epochs: int = 10,
        freeze: int = 0,
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
        average: float | None = None,
        data_on: str = "auto",
        capture: bool = True,
        progress: bool = True,
        class_weight: ClassWeight = None,
        sample_weight: ArrayLike | None = None,
        callbacks: Sequence[Callback] = (),
        metrics: MetricList = (),
    ) -> History:
        """Train on `data.train`, validate on `data.validation`, and return the history; `data.test` is never read.

        A trained network continues from its weights and its totals of epochs and steps. N calls of one epoch, with a
        constant learning rate and the same optimizer object (or none), give the same bits as one call of N epochs. A
        schedule starts anew in each call, and so do the steps and epochs of the returned history.

        Args:
            data: Data set, samples, (x, y), or x; all but a data set are split into training and validation.
            y: Targets for x. For a network of one output, (n,) are numbers; for one of several outputs, classes.
            validation_data: Samples, (x, y) or (x, y, weights) for validation, instead of a split.
            loss: Loss, or class or name, in any case, of one without arguments: "MeanSquaredError" or "mse". Default:
                SoftmaxCrossEntropy for labels (BinaryCrossEntropy for two classes and one output), MeanSquaredError for
                float targets (BinaryCrossEntropy for several targets of 0 and 1, if the network ends in Dense or
                Sigmoid). One-hot rows are labels, but BinaryCrossEntropy takes them as several binary targets.
            optimizer: Optimizer, or a class or name, "adam". Default: SGD(0.1, momentum=0.9). The optimizer of the last
                call continues from its state; any other starts fresh.
            regularizer: L1 or L2, or None.
            epochs: Number of epochs.
            freeze: Number of first epochs that train only the new layers. Layers from another network stay fixed, with
                their BatchNorm statistics, and Dropout before them is off. Without new layers, the last layer with
                weights trains alone. Then all layers train, and the optimizer starts fresh.
            batch_size: Number of samples in a batch; the last of an epoch may be smaller. Default: 128, at most all.
            device: "auto", "cpu", "cuda" or "cuda:N"; "auto" falls back to the CPU if CUDA cannot compile kernels.
            dtype: "float32" or "float64".
            precision: "float32", or on a CUDA device "tf32", "bfloat16" or "float16" for products on the tensor cores,
                with weights, sums, losses and statistics in float32. Factors above 65,504 overflow in "float16".
            seed: Seed of the initial weights and of the order of batches.
            augmentation: Random changes of the training images, or None.
            recompute_statistics: Whether BatchNorm ends with statistics of the training set, not running averages.
            validate_every: Number of steps between records. Default: a quarter of an epoch.
            patience: Number of epochs without a lower validation loss after which training stops and restores the best
                weights, as `gn.EarlyStopping` does; None trains to the end and keeps the last weights.
            skip_bad_batches: Whether to skip a batch that leads to NaN or Inf, and count it in the history, instead of
                ending the training.
            average: Decay d of an exponential moving average of the weights, m := d m + (1 − d) w after each step, for
                example 0.999. Records evaluate the average, patience selects it, and the network ends with it. None
                keeps the weights themselves.
            data_on: Memory for the data: "device"; "host", which copies each piece to the device during the computation
                on the piece before; "auto" for the device if they fit. The numbers are the same.
            capture: Whether a CUDA device replays the step as one graph; False runs it kernel by kernel, to debug.
            progress: Whether to show progress, by a `gn.ProgressBar`.
            class_weight: Weights of the classes in training: "balanced" for n / (K n_k), so all classes count equally;
                {name or number of a class: weight}, 1 for others; or a list of all. They weigh loss, gradient and
                metrics of the training samples, not of the validation samples.
            sample_weight: Weight of each sample, (n,), at least 0, for x and y or Samples. It weighs loss, gradient and
                metrics, in a validation split too. A sample of weight 2 counts as two.
            callbacks: `gn.Callback` objects, called between steps: at the beginning, at records, and at the ends of
                epochs and of the training; see docs/callbacks.md. If one raises, the network gets the weights of the
                last record; `gn.StopTraining` ends the training normally.
            metrics: Metrics of the validation samples at each record: functions of y_true and y_pred, `gn.Metric`
                objects, or names of report metrics, "f1", "top3" or "mae". Each is a column of the history,
                `history["f1"]`, and can be monitored, `gn.EarlyStopping(3, monitor="f1")`. They take another pass over
                these samples.

        Raises:
            DivergenceError: Loss or weights became NaN or Inf, or the loss exploded. The last good weights are
                restored, and the message names the first layer with NaN or Inf.
            KeyboardInterrupt: The weights of the last record are restored; a notebook gets the history so far instead.
                A `gn.Checkpointer` writes a checkpoint of the step first.
            DataError, ShapeError, OptionError, DeviceError: Invalid arguments.
        """
        trainer = Trainer(self, TrainOptions.among(locals()), data, y, validation_data, sample_weight)
        if trainer.placement:
            trainer.say(f"data on {trainer.placement}")
        return trainer.run()

    def find_learning_rate(
        self,
        data: Data | Samples | tuple[ArrayLike, ArrayLike] | ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        regularizer: Regularizer | None = None,
        batch_size: int | None = None,
        device: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "float32",
        seed: int = 0,
        augmentation: Augmentation | None = None,
        data_on: str = "auto",
        capture: bool = True,
        lowest: float = LOWEST,
        highest: float = HIGHEST,
        steps: int = STEPS,
        class_weight: ClassWeight = None,
        sample_weight: ArrayLike | None = None,
    ) -> LearningRateCurve:
        """Train a copy at exponentially rising learning rates, and suggest one (L. N. Smith, 2017).

        Network and optimizer stay unchanged, and the optimizer's own rate is ignored. Give the arguments of your later
        `fit`, and use the suggested rate there. Only the training samples are used. The search ends early if the loss
        explodes.

        Args:
            data: Data set, samples, (x, y), or x, split as `fit` splits them.
            y: Targets for x.
            loss: Loss, as for `fit`.
            optimizer: Optimizer, as for `fit`.
            regularizer: L1 or L2, or None.
            batch_size: Number of samples in a batch, on which the best rate depends.
            device: "auto", "cpu", "cuda" or "cuda:N".
            dtype: "float32" or "float64".
            precision: Precision of products on a CUDA device, as for `fit`.
            seed: Seed of the initial weights and of the order of batches.
            augmentation: Random changes of the training images, or None.
            data_on: "auto", "device" or "host", as for `fit`.
            capture: Whether a CUDA device replays the step as one graph.
            lowest: Learning rate of the first step.
            highest: Learning rate of the last step.
            steps: Number of steps.
            class_weight: Weights of the classes, as for `fit`.
            sample_weight: Weights of the samples, as for `fit`.

        Returns:
            Rates, losses and the suggestion, which is None if the loss did not fall; `plot` draws them.

        Raises:
            DivergenceError: The loss is NaN or Inf from the start.
            DataError, ShapeError, OptionError, DeviceError: Invalid arguments, or fewer than two samples.
        """
        options, rise = TrainOptions.among(locals()), Rising(lowest, highest, steps)
        return LearningRateCurve.of(try_rates(self, options, data, y, rise, sample_weight=sample_weight))

    @locked
    def replace_last(self, outputs: int) -> "Sequential":
        """Return a network with these layers, but a new last layer with weights, for another number of outputs.

        The other layers keep their present weights and statistics, and the inputs their form. Layers after the last
        weights, such as Softmax, become new layers. `fit` with `freeze=1` trains the new layers alone at first: see
        docs/fine-tuning.md.

        Args:
            outputs: Number of classes, or of float targets, of the new data.

        Raises:
            GpunnError: The network is not built, so it has no weights to keep.
            OptionError: No layer has weights, or the last with weights cannot have another number of outputs.
        """
        made = Sequential(with_last(self, outputs))
        made.trained_on = self.trained_on
        return made

    @explains_shortage
    def evaluate(
        self,
        samples: Samples | Data | tuple[ArrayLike, ArrayLike] | ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
    ) -> Evaluation:
        """Evaluate the network on samples: loss and accuracy, or for regression loss, RMSE and R².

        Args:
            samples: Samples, (x, y), or x; of a data set, its test set.
            y: Targets for x.
            sample_weight: Weight of each sample, (n,), at least 0: all results are weighted averages.
            class_weight: Weights of classes as in `fit`; "balanced" by these samples makes accuracy the mean recall.

        Raises:
            DataError, ShapeError: No samples, targets of another kind, or samples of another shape.
        """
        return evaluate(self, samples, y, sample_weight, class_weight)

    @explains_shortage
    def report(
        self,
        samples: Samples | Data | tuple[ArrayLike, ArrayLike] | ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight = None,
        metrics: MetricList = (),
    ) -> Report:
        """Compute all metrics of the network's task on samples, as scikit-learn defines them; print them as a table.

        A network trained on labels gives a `ClassificationReport`: precision, recall and F1 of each class and their
        averages, balanced and top-k accuracy, the confusion matrix, and ROC AUC for two classes. One trained on floats
        gives a `MultilabelReport` if its loss was `BinaryCrossEntropy`, else a `RegressionReport`: RMSE, MAE and R².
        The outputs are those of `predict_proba`.

        Args:
            samples: Samples, (x, y), or x; of a data set, its test set.
            y: Targets for x.
            sample_weight: Weight of each sample, (n,), at least 0: counts are sums of weights.
            class_weight: Weights of classes as in `fit`.
            metrics: Metrics of your own, functions f(y_true, y_pred) or `gn.Metric` objects; see docs/extending.md.

        Raises:
            DataError, ShapeError: No samples, targets of another kind, or samples of another shape.
            OptionError: An invalid metric, or one that cannot weigh samples.
        """
        return report_on(self, samples, y, sample_weight, class_weight, metrics)

    @explains_shortage
    def recompute_statistics(self, samples: Samples | Data) -> None:
        """Replace the running averages of every BatchNorm by statistics of the training set.

        In one pass, each layer normalizes by its batches, and their means and variances are combined.

        Args:
            samples: Training samples, or a data set, for its training set.

        Raises:
            OptionError: The network has no BatchNorm.
        """
        recompute_statistics(self, samples)

    @locked
    def summary(self) -> str:
        """Return a table of the layers with their output shapes, parameters and memory."""
        return summary(self)

    @locked
    def _repr_html_(self) -> str:
        return summary_html(self)


def load_model(path: StrPath, device: str = "auto", batch_size: int = 32, *, custom: Sequence[type] = ()) -> Sequential:
    """Load a model file of `save`, ready to predict or to train on; nothing that it names is imported.

    Args:
        path: Path of the file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Number of samples in the largest batch.
        custom: Classes of your own that the file may name, such as [Swish], for this call alone; `gn.register` adds
            them for all calls.

    Raises:
        ModelFileError: The file is missing, damaged, or not a model file of gpunn.
        MemoryShortageError: The network needs more memory than there is.
        OptionError, DeviceError: An invalid device or batch size.
    """
    return read_model(Sequential, path, device, batch_size, custom)


def load_onnx(
    path: StrPath,
    device: str = "auto",
    batch_size: int = 32,
    *,
    input_shape: Sequence[int] | None = None,
    custom: Sequence[type] = (),
) -> Sequential:
    """Load an ONNX file as a network that predicts and trains on; needs the extra `onnx`.

    A file of `export_onnx` gives the same network again, to the last bit, with the contents of a model file except the
    optimizer state. The nodes of any other file become layers, folded where equivalent: transposed weights, sums that
    are biases, residual connections, formulas of one activation. Images are (n, height, width, channels), as always.
    Nothing in a file is executed, and no other file is opened.

    Args:
        path: Path of the file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Number of samples in the largest batch.
        input_shape: Shape of a sample, (features,) or (height, width, channels), if the file leaves it open.
        custom: Classes of your own that a file of `export_onnx` names.

    Raises:
        ModelFileError: The file is missing, damaged, or has a node without a layer in gpunn; the message names node,
            operator and attribute.
        MemoryShortageError: The network needs more memory than there is.
        OptionError, DeviceError: Invalid arguments, or the extra is missing.
    """
    require_onnx()
    from gpunn.saving.onnx.importing import load

    return load(Sequential, path, device, batch_size, input_shape, custom)
