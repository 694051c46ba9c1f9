"""A network of layers in sequence: train, evaluate, summarize, save and load it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from gpunn.reports.learning_rates import LearningRateCurve

# Attributes that the rest of the library uses, and that completion of names does not show.
_INTERNAL = {"arranged", "backpropagate", "buffer_bytes", "build_with", "clock", "compile_ahead"}
_INTERNAL |= {"classes", "count_on", "factor_of", "input", "freezing_changed", "lay_out", "linked", "names_of_outputs"}
_INTERNAL |= {"optimizer_memory", "propagate", "stages_under", "tokens", "unbuild", "frozen", "held", "taken"}


class Sequential(SaveableNetwork):
    """Layers in sequence.

    A layer that is part of another network stays there as it is: this one gets its own copy (see `layers`), which
    begins with the weights and statistics that the other has now. Copies and pickles of a network are independent of
    it and equal to the last bit; a pickle of one on a CUDA device is built on the CPU where there is none.

    Threads may share a network: each call waits until that of another thread has ended, a whole `fit` too. Calls that
    belong together, such as `forward` and `backward`, are kept together by `with network.lock:`.

    Args:
        layers: Layers from input to output; one that needs no arguments may be given by its class or name, "relu".

    Attributes:
        layers: Layers of this network; set `trainable` of these.
        parameters: All weights and biases, after `build`.
        loss: Loss it was trained with, or None.
        task: Kind of answers it was trained for: classes, 0 or 1 for each output, or numbers; None without `fit`.
        class_names: Names of the labels it was trained on.
        backend: Device it lives on, after `build`.
        epochs_trained, steps_trained: Totals of all calls of `fit`; `backward` counts as a step.
        lock: Re-entrant lock, held by every call while it works.
        trained_on: Form of the training inputs, or None; later inputs are brought to the same form.
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
        """Train on `data.train`, watching `data.validation`, and return the records; `data.test` is never looked at.

        A trained network continues from its weights and its count of epochs and steps: N calls for one epoch each, with
        a constant rate and the same optimizer object (or none given), give the same bits as one call for N epochs. A
        schedule begins anew in each call, and so do the steps and epochs of the returned history.

        Args:
            data: Data set, samples, (x, y), or x; all but a data set are split into training and validation.
            y: Targets for x. A network of one output takes (n,) as numbers to learn, one of several as classes.
            validation_data: Samples, (x, y) or (x, y, weights) to watch in place of some that are held back.
            loss: Loss, or the class or name of one that needs no arguments, "MeanSquaredError" or "mse", in whatever
                letters. Default: SoftmaxCrossEntropy for labels (BinaryCrossEntropy for two classes and one output) and
                MeanSquaredError for float targets (BinaryCrossEntropy for several of 0 and 1, if the network ends in
                Dense or Sigmoid). Rows of one 1 are labels for these; BinaryCrossEntropy takes them as several answers
                at once.
            optimizer: Optimizer, or a class or name, "adam". Default: SGD(0.1, momentum=0.9). The one of the last call
                continues from its state; any other begins afresh.
            regularizer: L1 or L2, or None.
            epochs: Number of epochs.
            freeze: Number of epochs at the beginning in which only the new layers learn: those that came from another
                network stay as they are, BatchNorm's statistics too, and Dropout before them switches nothing off. If
                there are no new ones, the last with weights learns alone. Then all learn, the optimizer begins afresh.
            batch_size: Samples in a batch; the last of an epoch may be shorter. Default: 128, never more than all.
            device: "auto", "cpu", "cuda" or "cuda:N"; "auto" goes on with the CPU where CUDA cannot compile kernels.
            dtype: "float32" or "float64".
            precision: "float32", or on a CUDA device "tf32", "bfloat16" or "float16" for products on the tensor cores,
                with weights, sums, losses and statistics in float32. Factors above 65,504 overflow in "float16".
            seed: Seed of the initial weights and the order of batches.
            augmentation: Random changes of the training images, or None.
            recompute_statistics: Whether BatchNorm ends with statistics of the training set, not running averages.
            validate_every: Number of steps between records. Default: a quarter of an epoch.
            patience: Number of epochs without a better validation loss after which training stops and the best weights
                are put back, as by `gn.EarlyStopping`; None trains to the end and keeps the last weights.
            skip_bad_batches: Whether a batch that leads to NaN or Inf is left out, and counted in the history, instead
                of ending the training.
            average: Decay d of an exponential moving average of the weights, m := d m + (1 − d) w after each step, as
                0.999: it is measured in records, chosen by patience, saved, and what the network has at the end. None
                for the weights themselves.
            data_on: Where the data lie meanwhile: "device"; "host", from where each piece is copied to the device while
                the one before is computed with; "auto" for the device where they fit. The numbers are the same.
            capture: Whether a CUDA device replays the step as one graph; False runs it kernel by kernel, to debug.
            progress: Whether progress is shown, by a `gn.ProgressBar`.
            class_weight: Weights of the classes in training: "balanced" for n / (K n_k), so that all classes count
                alike, {name or number of a class: weight}, 1 for others, or a list of all. They weigh loss, gradient
                and figures of the training samples; validation samples are as they are.
            sample_weight: Weight of each sample, (n,), at least 0, for x and y or Samples; it enters loss, gradient and
                figures, also of samples that are held back for validation. A sample of weight 2 counts as two.
            callbacks: Objects of `gn.Callback`, called between steps at the beginning, at records, at the end of epochs
                and of the training; see docs/callbacks.md. What an exception of one leaves are the weights of the last
                record; `gn.StopTraining` ends the training well.
            metrics: Metrics of the validation samples at each record: functions of y_true and y_pred, `gn.Metric`s, or
                names of those of reports, "f1", "top3" or "mae". Each is a column of the history, `history["f1"]`, and
                may be watched, `gn.EarlyStopping(3, monitor="f1")`. They take another pass over these samples.

        Raises:
            DivergenceError: Loss or weights became NaN or Inf, or the loss exploded; the last good weights are put
                back, and the message names the layer that was first.
            KeyboardInterrupt: The weights of the last record are put back; a notebook gets the history so far instead.
                With a `gn.Checkpointer` a checkpoint of the step is written before.
            DataError, ShapeError, OptionError, DeviceError: Arguments that cannot be.
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
    ) -> "LearningRateCurve":
        """Train a copy at exponentially rising learning rates, and suggest one (L. N. Smith, 2017).

        The network stays as it is, and so does the optimizer, whose own rate is left aside: give what you would give to
        `fit`, and then `fit` the suggested rate. Only the training samples are looked at. It ends where the loss
        explodes.

        Args:
            data: Data set, samples, (x, y), or x, split as `fit` splits them.
            y: Targets for x.
            loss: Loss, as for `fit`.
            optimizer: Optimizer, as for `fit`.
            regularizer: L1 or L2, or None.
            batch_size: Samples in a batch, on which the best rate depends.
            device: "auto", "cpu", "cuda" or "cuda:N".
            dtype: "float32" or "float64".
            precision: Of products on a CUDA device, as for `fit`.
            seed: Seed of the initial weights and the order of batches.
            augmentation: Random changes of the training images, or None.
            data_on: "auto", "device" or "host", as for `fit`.
            capture: Whether a CUDA device replays the step as one graph.
            lowest: Learning rate of the first step.
            highest: Learning rate of the last step.
            steps: Number of steps.
            class_weight: Weights of the classes, as for `fit`.
            sample_weight: Weights of the samples, as for `fit`.

        Returns:
            Rates, losses and suggestion, None where the loss did not fall; `plot` draws them.

        Raises:
            DivergenceError: The loss is NaN or Inf before anything was learned.
            DataError, ShapeError, OptionError, DeviceError: Arguments that cannot be, or fewer than two samples.
        """
        from gpunn.reports.learning_rates import LearningRateCurve

        options, rise = TrainOptions.among(locals()), Rising(lowest, highest, steps)
        return LearningRateCurve.of(try_rates(self, options, data, y, rise, sample_weight=sample_weight))

    @locked
    def replace_last(self, outputs: int) -> "Sequential":
        """Return a network with the layers of this one, but a new last layer with weights, of so many outputs.

        It begins with the weights and statistics that the others have now, and takes inputs of the same form; what
        comes after the last weights, such as Softmax, is kept as a new layer. `fit` with `freeze=1` lets the new part
        learn alone at first: see docs/fine-tuning.md.

        Args:
            outputs: Number of classes, or of float targets, of the data that will be learned.

        Raises:
            GpunnError: The network is not built, so there is nothing to keep.
            OptionError: No layer has weights, or the last that has cannot be given another number of outputs.
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
        """Return the figures of the network's task on samples: loss and accuracy, for regression RMSE and R².

        Args:
            samples: Samples, (x, y), or x; of a data set, its test set.
            y: Targets for x.
            sample_weight: Weight of each sample, (n,), at least 0: the figures are averages by weight.
            class_weight: Weights of classes as in `fit`; "balanced" by these samples, so accuracy is the mean recall.

        Raises:
            DataError, ShapeError: Nothing to evaluate on, or targets of another kind or samples of another shape.
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
        """Return every metric of the network's task on samples, as scikit-learn defines them; printed, it is a table.

        Trained on labels, a `ClassificationReport`: precision, recall and F1 of each class and their averages, balanced
        and top-k accuracy, the confusion matrix, ROC AUC for two classes. Trained on floats, a `MultilabelReport` by
        `BinaryCrossEntropy`, else a `RegressionReport`: RMSE, MAE and R². The outputs are those of `predict_proba`.

        Args:
            samples: Samples, (x, y), or x; of a data set, its test set.
            y: Targets for x.
            sample_weight: Weight of each sample, (n,), at least 0: counts are sums of weights.
            class_weight: Weights of classes as in `fit`.
            metrics: Metrics of your own, functions f(y_true, y_pred) or objects of `gn.Metric`; see docs/extending.md.

        Raises:
            DataError, ShapeError: Nothing to report on, or targets of another kind or samples of another shape.
            OptionError: A metric that is none, or cannot weigh samples.
        """
        return report_on(self, samples, y, sample_weight, class_weight, metrics)

    @explains_shortage
    def recompute_statistics(self, samples: Samples | Data) -> None:
        """Replace the running averages of every BatchNorm by the statistics of these samples, the training set.

        One pass: each layer is normalized by its batches, and their means and variances are put together.

        Raises:
            OptionError: The network has no BatchNorm.
        """
        recompute_statistics(self, samples)

    @locked
    def summary(self) -> str:
        """Return a table of the layers, shapes of their outputs, parameters and memory."""
        return summary(self)

    @locked
    def _repr_html_(self) -> str:
        return summary_html(self)


def load_model(path: StrPath, device: str = "auto", batch_size: int = 32, *, custom: Sequence[type] = ()) -> Sequential:
    """Read a model that `save` wrote, ready to predict or to go on training; nothing that it names is imported.

    Args:
        path: Path of the file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Number of samples in the largest batch.
        custom: Classes of your own that the file may name, such as [Swish], for this call alone; `gn.register` is for
            all calls.

    Raises:
        ModelFileError: The file is missing, damaged, or not one of gpunn's.
        MemoryShortageError: There is less memory than the network needs.
        OptionError, DeviceError: The device or the batch size cannot be.
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
    """Read an ONNX file as a network that predicts and trains on; needs the extra `onnx`.

    A file that `export_onnx` wrote gives the same network again, to the last bit, with all that a model file keeps but
    the state of an optimizer. Of another file the nodes become layers, and what is equivalent is folded: transposed
    weights, sums that are biases, residual connections, formulas that are one activation. Images then come as always,
    (n, height, width, channels). Nothing of a file is executed, and no other file is opened.

    Args:
        path: Path of the file.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Number of samples in the largest batch.
        input_shape: Shape of a sample, (features,) or (height, width, channels), where the file leaves it open.
        custom: Classes of your own that a file of gpunn's names.

    Raises:
        ModelFileError: The file is missing, damaged, or has a node that gpunn has no layer for; it names node, operator
            and attribute.
        MemoryShortageError: There is less memory than the network needs.
        OptionError, DeviceError: An argument that cannot be, or the extra is missing.
    """
    require_onnx()
    from gpunn.saving.onnx.importing import load

    return load(Sequential, path, device, batch_size, input_shape, custom)
