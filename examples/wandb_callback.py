"""A training tracked by Weights & Biases: `pip install wandb`, then `python examples/wandb_callback.py`.

With WANDB_MODE=offline it needs no account: the run lies in the folder wandb, and `wandb sync` sends it later.
"""

import wandb

import gpunn as gn


class WandB(gn.Callback):
    """Logs parameters once, and the figures of each record under its step."""

    def __init__(self, run: wandb.Run) -> None:
        self.run = run

    def on_train_begin(self, training: gn.TrainingView) -> None:
        self.run.config.update({"layers": repr(training.model.layers), "batch_size": training.batch_size})
        self.run.config.update({"epochs": training.epochs, "data": training.data.name, "device": training.device})

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        figures = {f"{n}/{part}": x for part in ("train", "validation") for n, x in record.figures(part).items()}
        self.run.log({**figures, "learning_rate": record.learning_rate}, step=record.step)


if __name__ == "__main__":
    model = gn.Sequential([gn.Dense(64), gn.ReLU(), gn.Dense(10)])
    with wandb.init(project="gpunn", name="digits") as run:
        model.fit(gn.load_data("digits"), epochs=3, callbacks=[WandB(run)])
