"""Run an exported file in another onnxruntime, of a folder with a NumPy of its own: old_onnxruntime.py FOLDER."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import gpunn as gn

RUN = """
import sys, numpy, onnxruntime
x, wanted = (numpy.load(path) for path in sys.argv[2:])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(name,) = (each.name for each in session.get_inputs())
worst = max(float(abs(session.run(None, {name: x[:n]})[0] - wanted[:n]).max()) for n in (1, 7, 300))
print(f"onnxruntime {onnxruntime.__version__}: answers differ by up to {worst:.2g}")
sys.exit(not worst <= 1e-5)
"""


def main(folder: str) -> None:
    layers = [gn.Conv2D(8, 3, padding="same"), gn.BatchNorm(), gn.LeakyReLU(), gn.MaxPool2D(), gn.LayerNorm()]
    layers += [gn.Activation.from_equation("mish", "z * tanh(log(1 + exp(z)))"), gn.AveragePool2D(), gn.Flatten()]
    model = gn.Sequential([*layers, gn.Dropout(), gn.Dense(20), gn.LayerNorm(), gn.Softplus(), gn.Dense(10)])
    data = gn.load_data("digits")
    model.fit(data, epochs=1, progress=False, device="cpu")
    x = np.asarray(data.train.inputs[:300]).reshape(-1, 8, 8, 1).astype(np.float32) / np.float32(16)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        model.export_onnx(path / "model.onnx")
        np.save(path / "x.npy", x)
        np.save(path / "wanted.npy", model.predict_proba(x))
        files = [str(path / name) for name in ("model.onnx", "x.npy", "wanted.npy")]
        environment = {**os.environ, "PYTHONPATH": folder}
        sys.exit(
            subprocess.run([sys.executable, "-c", RUN, *files], env=environment, cwd=place, check=False).returncode
        )


if __name__ == "__main__":
    main(sys.argv[1])
