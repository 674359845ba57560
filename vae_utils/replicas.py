"""Noise for several replicas, the one thing about them that Keras leaves to the model."""

import keras
from keras import ops


class SeedGenerator(keras.random.SeedGenerator):
    """As Keras's, but each replica of a TensorFlow strategy gets its own random numbers.

    Keras's gives all replicas the same. The first replica, or a lone one, draws as with Keras's.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if replica := tf.distribute.get_replica_context():
                number = ops.cast(replica.replica_id_in_sync_group, seed.dtype)
                seed += number * ops.convert_to_tensor([1_000_003, 0], seed.dtype)
        return seed
