"""Drop random units in training, against overfitting."""

from gpunn.backend.base import Shape
from gpunn.config import register
from gpunn.config.scalars import SHARE, real
from gpunn.kernels.dropout import dropout
from gpunn.kernels.record import Array
from gpunn.nn.layers.base import BuildContext, Layer


@register
class Dropout(Layer):
    """y = 0 with probability p, else x/(1 − p), for each unit in training; otherwise the identity.

    Scaling in training has the same expectation as multiplying the outgoing weights by (1 − p) afterwards
    (N. Srivastava et al., 2014, section 10). The mask is a pure function of (seed, layer, step, sample of the batch)
    and is drawn again in back-propagation. With `trainable = False` it is the identity in training too.

    Args:
        p: Probability that a unit is dropped, 0 to below 1, rounded to the nearest 1/65,536.

    Raises:
        OptionError: p out of its range.
    """

    is_pictured = False
    drops_units = True
    aliases_gradient = True  # when nothing was dropped

    def __init__(self, p: float = 0.5) -> None:
        self.p = real(p, "p of Dropout", SHARE)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._run = context.backend.run
        # 16 random bits a unit take half of the work of 32. The scale belongs to the rounded p.
        threshold = min(round(self.p * 2**16), 2**16 - 1)
        self._stream, self._share = (context.seed, context.number), context.share
        self._kept = (context.count, threshold, 2**16 / (2**16 - threshold))
        self._drops = self.p > 0 and not context.is_frozen
        self._y = None if context.may_overwrite_input else context.buffer(input_shape)
        self._dx = context.buffer(input_shape) if context.is_last else None
        # When nothing is dropped the output is the input, so this layer's own buffer does not make the output free.
        self.output_is_free = context.may_overwrite_input
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        self._dropped = training and self._drops
        if not self._dropped:
            return x
        y = x if self._y is None else self._y[x.shape[-1]]
        self._run(dropout, x, *self._stream, self._share.first, *self._kept, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        if not self._dropped:
            return dy
        dx = dy if self._dx is None else self._dx[dy.shape[-1]]
        self._run(dropout, dy, *self._stream, self._share.first, *self._kept, dx)
        return dx
