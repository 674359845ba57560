"""What chapter 15 builds in the open is what `vae_utils.beyond` offers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_utils import models
from vae_utils.beyond import bits_back

CHAPTER = "15_bits_on_disk"


@pytest.fixture
def chapter(chapter_code):
    cells = ["imports", "seed", "coder", "intervals", "intervals-b", "intervals-c", "coders"]
    cells += ["networks-b", "networks-c", "push", "push-b"]
    found = chapter_code(CHAPTER, *cells)
    keras.utils.set_random_seed(0)
    vae = models.build_vae("dense", 4, seed=0)
    compiled = {"encode": tf.function(vae.encoder), "decode": tf.function(vae.decoder)}
    found.update(compiled, vae=vae)
    return found


def test_the_chapters_writer_and_reader_are_the_modules(chapter):
    codec = bits_back.of_vae(chapter["vae"], chapter["BINS"])
    images = np.random.default_rng(0).integers(0, 2, (5, 784)).astype(np.int32)
    words = bits_back.first_words(codec)
    stacks = [bits_back.AnsCoder(words) for _ in "12"]
    for x in images:
        chapter["push"](stacks[0], x)
        codec.push(stacks[1], x)
    np.testing.assert_array_equal(*(stack.get_compressed() for stack in stacks))
    for x in images[::-1]:
        np.testing.assert_array_equal(codec.pop(stacks[0]), x)
        np.testing.assert_array_equal(chapter["pop"](stacks[1]), x)
    np.testing.assert_array_equal(stacks[1].get_compressed(), words)
