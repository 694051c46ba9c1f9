"""Choose the callbacks of a training: yours, those of its options, and those of every training."""

from gpunn.errors import OptionError
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import Callback, Display
from gpunn.train.progress import ProgressBar
from gpunn.train.stopping import BestWeights, EarlyStopping, OverfittingDetector


def early_stopping(options: TrainOptions) -> EarlyStopping:
    """Return the given `EarlyStopping`, or one made from `patience`, or one that never stops."""
    given = [each for each in options.callbacks if isinstance(each, EarlyStopping)]
    if options.patience is not None:
        given.append(EarlyStopping(options.patience))
    if len(given) > 1:
        both = "patience and EarlyStopping" if options.patience is not None else f"{len(given)} of EarlyStopping"
        raise OptionError(f"a training stops early by one rule, got {both}: leave all but one out")
    return given[0] if given else BestWeights()


def all_callbacks(options: TrainOptions, stopping: EarlyStopping) -> list[Callback]:
    """Return the callbacks of the options, and the missing ones of every training."""
    made = list(options.callbacks)
    if not any(isinstance(each, OverfittingDetector) for each in made):
        made.append(OverfittingDetector())
    if stopping not in made:
        made.append(stopping)
    if options.progress and not any(isinstance(each, Display) for each in made):
        made.append(ProgressBar())
    return made
