"""Embed tokens: look up a learned row of features for each whole number."""

from gpunn.backend.base import Shape
from gpunn.config import register
from gpunn.config.scalars import positive_whole
from gpunn.data.tokens import checked_count
from gpunn.errors import ShapeError
from gpunn.kernels.embedding import embed, embed_gradient
from gpunn.kernels.record import Array
from gpunn.nn.initializers import NAMED, Initializer, Normal, checked_weights
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.parameter import Parameter


@register
class Embedding(Layer):
    """a[f, t] = w[x_t, f]: each token x_t, a whole number, becomes row x_t of the table w.

    It equals the product of one-hot rows with w, without the zeros (T. Mikolov et al., 2013). Backward, ∂C/∂w[v] sums δ
    over all places of token v in a fixed order, so the bits repeat. It is the first layer of a network, whose inputs
    (length,) are then whole numbers from 0 to `tokens` − 1, neither rounded nor scaled; other numbers are refused
    before the forward pass. The output is an image of one row, for `Conv2D(32, (1, 3))`, `GlobalAveragePool2D`, or
    `Flatten` and `Dense`.

    Args:
        tokens: Number of different tokens, PyTorch's num_embeddings.
        features: Number of features of a token, PyTorch's embedding_dim.
        weights: Distribution of the initial table, by default N(0, 1), also for "auto". Regularizers act on the table.

    Raises:
        OptionError: An argument out of its range.
        ShapeError: The input is an image, or another layer comes before.

    Shapes: (length,) → (1, length, features); w is (tokens, features).
    """

    takes_rows = True
    w: Parameter

    def __init__(self, tokens: int, features: int, weights: Initializer | str = "normal") -> None:
        self.tokens = checked_count(positive_whole(tokens, "tokens of Embedding"), "tokens of Embedding")
        self.features = positive_whole(features, "features of Embedding")
        self.weights = checked_weights(weights)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            expected = f"{self.name}: Embedding expects tokens (length,)"
            raise ShapeError(f"{expected}, got {input_shape}: put it before all other layers")
        return (1, *input_shape, self.features)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run = context.backend.run
        made = NAMED.get(self.weights, Normal)() if isinstance(self.weights, str) else self.weights
        # An output is one weight of the table, not a sum: its fan_in is 1.
        size = (self.tokens, self.features)
        self.w = context.parameter("w", size, made, fan_in=1, fan_out=self.features, weight_decay=True)
        self.w.is_table = True
        self._y = context.buffer(shape)
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        self._x, y = x, self._y[x.shape[1]]
        self._run(embed, x, self.w.value, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        if self.w.grad is not None:
            self._run(embed_gradient, self._x, dy, self.w.grad)
        return None

    def forget_batch(self) -> None:
        self._x = None
