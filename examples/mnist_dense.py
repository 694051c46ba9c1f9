"""MNIST with a fully-connected network, in the Python interface: python examples/mnist_dense.py [DATA]

98 % of the test set. `lecture/09_mnist.py` goes through it step by step.
"""

import sys

import gpunn as gn

# 54,000 images to learn from and 6,000 to watch; the 10,000 of the test set stay closed until the last line.
data = gn.load_data(sys.argv[1] if len(sys.argv) > 1 else "mnist")
print(data)

model = gn.Sequential(
    [
        gn.Dense(128),  # z = w a + b, w from He's distribution because a ReLU follows
        gn.ReLU(),  # a = max(z, 0)
        gn.Dense(10),  # one output a digit; the softmax is part of the loss
    ]
)

history = model.fit(
    data,
    loss=gn.SoftmaxCrossEntropy(),  # C = −(1/n) Σ ln softmax(z)_y
    optimizer=gn.SGD(gn.OneCycle(0.2), momentum=0.9, nesterov=True),  # p := p − η v, η up to 0.2 and down to nearly 0
    regularizer=gn.L2(5.0),  # C := C + (λ/2n) Σ w²
    epochs=10,
    batch_size=128,
    seed=0,
)
print(model.summary())
print(history)

first = data.validation.first(5)
print("the network says", model.predict(first.inputs), "and right is", first.targets)
print(f"test accuracy {model.evaluate(data.test).accuracy:.2%}")
model.save("mnist_dense.safetensors")
