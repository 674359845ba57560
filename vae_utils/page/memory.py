"""Gives memory back that Keras and TensorFlow keep."""

import ctypes
import gc
import platform

import keras

sum_over_replicas = keras.optimizers.Optimizer._all_reduce_sum_gradients


def release_trained_models():
    """Give back the memory of trained models that nothing refers to any more.

    Call it once before the first training, then after each `del vae`. It collects Python's cycles
    and, from the first call on, spares Keras's optimizers a sum over replicas where there is one
    replica: what that leaves in TensorFlow's gradient registry would keep graph, weights and
    optimizer of every trained model for good (tensorflow/tensorflow#97697).
    """
    keras.optimizers.Optimizer._all_reduce_sum_gradients = _sum_if_replicated
    gc.collect()
    if platform.libc_ver()[0] == "glibc":  # which keeps freed memory for itself
        ctypes.CDLL(None).malloc_trim(0)


def _sum_if_replicated(optimizer, grads_and_vars):
    if optimizer._distribution_strategy.num_replicas_in_sync == 1:
        return grads_and_vars
    return sum_over_replicas(optimizer, grads_and_vars)
