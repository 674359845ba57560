"""One VAE trained by several processes, on one machine or on many, with TensorFlow's own engine."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import os
from pathlib import Path

import tensorflow as tf

from vae_utils.checks import require


def train(vae, share, epochs, file):
    """Train a VAE that `tf.distribute.MultiWorkerMirroredStrategy` has spread over processes.

    Keras's `fit` fails under this strategy. The loop here runs the model's own `train_step` on
    every worker: TensorFlow sums the gradients, so all workers hold the same weights. Each worker
    calls it with the same arguments but for its share of the images. After each epoch the first
    worker replaces `file`, whole. If a worker dies, the others end with a
    `tf.errors.OpError`; start all of them again, and they go on after the last epoch that was kept.

    Args:
        vae: a compiled `models.VAE`, built in the scope of the strategy.
        share: `tf.data.Dataset` of this worker's float32 batches, of known length. All workers
            have equally many batches, of equal sizes.
        epochs: number of passes in all, those before a restart counted.
        file: path that ends in `.weights.h5`, on a disk that all workers see.

    Returns:
        The logs of each epoch run, means over all workers: a list of dictionaries, nats per image.

    Raises:
        ValueError: if the length of the share is unknown, or the file's name ends otherwise.
        tf.errors.OpError: if another worker is gone.
    """
    file, steps, strategy = Path(file), int(share.cardinality()), vae.distribute_strategy
    require(steps > 0, "A share must have a known number of batches.", f"a cardinality of {steps}")
    require(file.name.endswith(".weights.h5"), "file must end in .weights.h5.", f"{file=}")
    resolver = strategy.cluster_resolver
    is_first = resolver is None or resolver.task_id == 0
    if file.exists():
        with strategy.scope():
            vae.load_weights(file)

    @tf.function
    def step(images):
        strategy.run(vae.train_step, args=((images,),))

    logs = []
    for _ in range(int(vae.optimizer.iterations.numpy()) // steps, epochs):
        vae.reset_metrics()
        for images in share:
            step(images)
        logs.append({metric.name: float(metric.result()) for metric in vae.metrics})
        if is_first:  # errors are not swallowed: a training that cannot be resumed should say so
            unfinished = file.with_name(f"unfinished-{file.name}")
            vae.save_weights(unfinished)
            os.replace(unfinished, file)
    strategy.reduce("SUM", 1.0, axis=None)  # all wait for the file, which a second call reads
    return logs
