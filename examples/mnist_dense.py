"""MNIST with a fully-connected network, in the Python interface: python examples/mnist_dense.py [DATA]"""

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
    optimizer=gn.SGD(0.1, momentum=0.9),  # v := μ v + ∂C/∂p, p := p − η v
    regularizer=gn.L2(5.0),  # C := C + (λ/2n) Σ w²
    epochs=8,
    batch_size=128,
    seed=0,
)
print(model.summary())
print(history)

first = data.validation.first(5)
print("the network says", model.predict(first.inputs), "and right is", first.targets)
print(f"test accuracy {model.evaluate(data.test).accuracy:.2%}")
model.save("mnist_dense.safetensors")
