"""A few labels: the model M2, in which the label is a latent variable that some images show."""

from vae_utils import quiet  # noqa: F401, before Keras

# isort: split
import math

import keras
import numpy as np
from keras import layers, ops

from vae_utils import losses, models, training
from vae_utils.checks import is_positive_integer, require

PER_CLASS = 10
LATENT_DIM, WIDTH = 5, 256
BATCH_SIZE = 100
ALPHA, SHARE = 50.0, 0.01  # of the loss, see `M2`


def pick(labels, per_class=PER_CLASS, seed=0):
    """Return row numbers of images whose labels are shown: as many of each class.

    Args:
        labels: integers, shape `(n,)`.
        per_class: how many of each.
        seed: integer from which they follow.

    Returns:
        NumPy integers, shape `(classes * per_class,)`, class by class.

    Raises:
        ValueError: if a class has fewer.
    """
    rng, rows = np.random.default_rng(seed), []
    for name in np.unique(labels):
        of_class = np.flatnonzero(labels == name)
        wanted = f"Each class needs {per_class} images."
        require(len(of_class) >= per_class, wanted, f"{len(of_class)} of class {name}")
        rows.append(rng.choice(of_class, per_class, replace=False))
    return np.concatenate(rows)


class M2(keras.Model):
    """p(y) p(z) p(x|y, z) with the label y seen for a few x: Kingma et al. (2014), section 3.

    All classes are equally probable. The loss, in nats for each unlabelled x, is the negative
    bound on log p(x), plus that on log p(x, y) of the labelled ones times `share`, plus `alpha`
    times the cross-entropy of q(y|x) on the labelled ones. `fit` logs the three as `free`, `told`
    and `crossed`, and takes batches of `(free, told, y)`: x without labels, `(batch, size)`, and
    with them, `(m, size)`, and one-hot labels, `(m, classes)`.

    Args:
        classifier: network from x to the logits of q(y|x), `(batch, classes)`.
        encoder: network from `[x, y]` to `[mean, log_var]` of q(z|x, y) for k labels of each x: y
            has the shape `(batch, k, classes)`, each output `(batch, k, latent_dim)`.
        decoder: network from `[z, y]` to the logits of p(x|y, z), for the Gaussian likelihood to
            its means, `(batch, k, size)`.
        likelihood: "bernoulli", or "gaussian" with one trained variance.
        alpha: weight of the cross-entropy.
        share: weight of the labelled bound, of its mean over the labelled x of a batch.
        seed: integer that makes the sampled z repeatable, or None.

    Raises:
        ValueError: for an unknown likelihood.
    """

    def __init__(
        self,
        classifier,
        encoder,
        decoder,
        likelihood="bernoulli",
        alpha=ALPHA,
        share=SHARE,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        wanted = f"likelihood must be one of {models.LIKELIHOODS}."
        require(likelihood in models.LIKELIHOODS, wanted, f"{likelihood=}")
        self.classifier, self.encoder, self.decoder = classifier, encoder, decoder
        self.likelihood, self.alpha, self.share = likelihood, alpha, share
        self.classes, self.size = classifier.output_shape[-1], classifier.input_shape[-1]
        self.sampling = models.Sampling(seed)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("free", "told", "crossed")]
        if likelihood == "gaussian":
            start = keras.initializers.Constant(-1.0)
            self.log_var = self.add_weight((), start, name="log_var")
        self.built = True

    def costs(self, x, y):
        """Return the negative bound on log p(x, y) in nats for k labels of each x, `(batch, k)`.

        Args:
            x: `(batch, size)`.
            y: one-hot labels, `(batch, k, classes)`.
        """
        x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
        mean, log_var = self.encoder([x, y])
        means = self.decoder([self.sampling((mean, log_var)), y])
        if self.likelihood == "gaussian":
            xs = ops.repeat(x, y.shape[1], axis=0)
            nll = losses.gaussian_nll(xs, ops.reshape(means, (-1, self.size)), self.log_var)
            nll = ops.reshape(nll, (-1, y.shape[1]))
        else:  # as `losses.bernoulli_nll`, without a copy of x for each label
            nll = ops.sum(ops.softplus(means), axis=-1) - ops.einsum("np,nkp->nk", x, means)
        return nll + losses.gaussian_kl(mean, log_var) + math.log(self.classes)

    def costs_of_all(self, x):
        """Return `costs` for every label: `(batch, classes)`."""
        every = ops.eye(self.classes)[None]
        return self.costs(x, ops.repeat(every, ops.shape(x)[0], axis=0))

    def call(self, inputs):
        free, told, y = (ops.cast(part, "float32") for part in inputs)
        crossed = -ops.sum(y * ops.log_softmax(self.classifier(told)), axis=-1)
        return {
            "free": unlabelled_cost(self.classifier(free), self.costs_of_all(free)),
            "told": self.costs(told, y[:, None])[:, 0],
            "crossed": crossed,
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        free, told, crossed = (y_pred[tracker.name] for tracker in self.trackers)
        for tracker, values in zip(self.trackers, (free, told, crossed)):
            tracker.update_state(values)
        loss = ops.mean(free) + self.share * ops.mean(told)
        return loss + self.alpha * ops.mean(crossed)

    def bound(self, x):
        """Return the negative bound on log p(x) in nats, NumPy float32, `(n,)`."""
        return self._in_batches(
            lambda part: unlabelled_cost(self.classifier(part), self.costs_of_all(part)), x
        )

    def classify(self, x):
        """Return the logits of q(y|x), NumPy float32, `(n, classes)`."""
        return self._in_batches(self.classifier, x)

    def _in_batches(self, network, x):
        parts = np.array_split(np.asarray(x, "float32"), -(-len(x) // BATCH_SIZE))
        return np.concatenate([ops.convert_to_numpy(network(part)) for part in parts])


def unlabelled_cost(logits, costs):
    """Return the negative bound on log p(x): Σ_y q(y|x) cost(x, y) − H(q(y|x)).

    Kingma et al. (2014), equation 7.

    Args:
        logits: of q(y|x), `(batch, classes)`.
        costs: negative bounds on log p(x, y) in nats, `(batch, classes)`.

    Returns:
        Nats, shape `(batch,)`.
    """
    log_q = ops.log_softmax(logits)
    return ops.sum(ops.exp(log_q) * (costs + log_q), axis=-1)


def build(size=784, classes=10, latent_dim=LATENT_DIM, width=WIDTH, **kwargs):
    """Build an untrained dense `M2`: one hidden layer of `width` in each network.

    The first layer of encoder and decoder is the sum of a linear map of x (or z) and one of y, so
    that what depends on x alone is computed once for all labels.

    Args:
        size, classes, latent_dim: numbers in x, y and z.
        width: units of each hidden layer.
        kwargs: as `M2`.
    """
    for name, value in (("size", size), ("classes", classes), ("latent_dim", latent_dim)):
        require(is_positive_integer(value), f"{name} must be a positive integer.", f"{value!r}")
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    x, y, z = keras.Input((size,)), keras.Input((None, classes)), keras.Input((None, latent_dim))
    classifier = keras.Model(x, layers.Dense(classes)(layers.Dense(width, **relu)(x)))
    h = ops.relu(layers.Dense(width)(x)[:, None] + layers.Dense(width)(y))
    heads = [layers.Dense(latent_dim)(h) for _ in range(2)]
    encoder = keras.Model([x, y], heads)
    h = layers.Dense(width, **relu)(layers.Concatenate()([z, y]))
    decoder = keras.Model([z, y], layers.Dense(size)(h))
    return M2(classifier, encoder, decoder, **kwargs)


def train(m2, batches, learning_rate=3e-3):
    """Compile and fit on a data set of batches, each taken once, with the book's schedule.

    Args:
        m2: an `M2`.
        batches: `tf.data.Dataset` of known length, each element the tuple `((free, told, y),)`.
        learning_rate: the schedule's peak.

    Returns:
        Keras's `History`.
    """
    training.prepare(m2, batches, 1, learning_rate)
    return m2.fit(batches, verbose=0, shuffle=False)
