"""MNIST with a convolutional network, in the Python interface: python examples/mnist_convolution.py [DATA]"""

import sys
from pathlib import Path

import gpunn as gn
from gpunn.reports.filters import draw_network

# 54,000 images to learn from and 6,000 to watch; the 10,000 of the test set stay closed until the last line.
data = gn.load_data(sys.argv[1] if len(sys.argv) > 1 else "mnist")
print(data)

model = gn.Sequential(
    [
        gn.Conv2D(16, size=3, padding="same"),  # 16 filters of 3×3 slid over the image, each at every place
        gn.ReLU(),
        gn.MaxPool2D(2),  # the largest of each 2×2: half the height and half the width
        gn.BatchNorm(),  # x̂ = (x − x̄)/√(σ² + ε), y = γ x̂ + β, one γ and one β a channel
        gn.Conv2D(32, size=3, padding="same"),  # each of these filters sees all 16 channels
        gn.ReLU(),
        gn.MaxPool2D(2),
        gn.BatchNorm(),
        gn.Flatten(),  # (height, width, channels) becomes (features,)
        gn.Dropout(0.3),  # in training each feature is switched off with probability 0.3
        gn.Dense(10),  # one output a digit; the softmax is part of the loss
    ]
)

history = model.fit(
    data,
    optimizer=gn.SGD(gn.OneCycle(0.1), momentum=0.9, nesterov=True),
    augmentation=gn.Augmentation(shift=1.0, rotation=10.0, scale=0.1),  # synthetic data: pixels, degrees, share
    recompute_statistics=True,  # BatchNorm remembers x̄ and σ² of the whole training set
    epochs=5,
    batch_size=64,
    seed=0,
)
print(model.summary())
print(history)

print("pictures", *draw_network(Path(), model, data, "what the filters look for, and answer"))
print(f"test accuracy {model.evaluate(data.test).accuracy:.2%}")
