"use strict";
/* The lab's settings as a program: this very model and schedule, with Keras and vae_utils. */
globalThis.LatentKeras = (() => {
  const EPOCHS = 20;  // where nothing has been learned yet
  const HELD_OUT = 200;

  /** The recipes of lab_data.js, in NumPy; `points` of shape (600, dimensions). */
  const RECIPES = {
    moons: `u, v = random.random((2, 600))
side = np.where(v < 0.5, 1, -1)
points = [1.2 * np.cos(np.pi * u) - 0.6, 1.2 * np.sin(np.pi * u) - 0.3]
points = (side * points).T + 0.1 * random.normal(size=(600, 2))`,
    ring: `angle = 2 * np.pi * random.random(600)
points = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
points += 0.1 * random.normal(size=(600, 2))`,
    bent: `u = 4 * random.random(600) - 2
points = np.stack([u, 0.6 * u**2 - 1], axis=-1)
points += 0.1 * random.normal(size=(600, 2))`,
    mixture: `angle = 2 * np.pi * random.integers(3, size=600) / 3 + np.pi / 2
points = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
points += 0.3 * random.normal(size=(600, 2))`,
    line: `first = random.random((600, 1)) < 0.6
mean, sigma = np.where(first, -1.2, 1.0), np.where(first, 0.35, 0.5)
points = mean + sigma * random.normal(size=(600, 1))`,
  };

  /** Points as rows of a list, four in a line. */
  function listed(text) {
    const pairs = text.split(";").map((pair) => `[${pair.replace(",", ", ")}]`);
    const lines = pairs.filter((_, i) => i % 4 === 0).map((_, i) => pairs.slice(4 * i, 4 * i + 4).join(", "));
    return lines.map((line) => `    ${line},`).join("\n");
  }

  function data({ view, data: name, points, seed, broken }) {
    if (view === "digits") {
      const source = name === "8x8" ? "lab.scans()" : "lab.thousand(data.load_digits())";
      return `levels, labels, white, train = ${source}
images = (levels / white).astype("float32")
x_train, held_out = images[:train], images[train:]${broken === "scaled" ? "\nx_train = x_train / white  # once too often" : ""}`;
    }
    if (name === "own") return `points = np.array([
${listed(points)}
])
x_train = held_out = points.astype("float32").reshape(-1, 2, 1, 1)`;
    const dim = name === "line" ? 1 : 2;
    return `random = np.random.default_rng(${seed})
${RECIPES[name]}
x = points.astype("float32").reshape(-1, ${dim}, 1, 1)
x_train, held_out = x[:-${HELD_OUT}], x[-${HELD_OUT}:]`;
  }

  function networks({ hidden, latent, broken }, shape) {
    const size = shape[0] * shape[1];
    const last = broken === "sigmoid"
      ? `h = 1 / (1 + ops.exp(-layers.Dense(${size})(h)))  # a sigmoid, which is one too many
decoder = keras.Model(z, layers.Reshape(x_train.shape[1:])(h))`
      : `decoder = keras.Model(z, layers.Reshape(x_train.shape[1:])(layers.Dense(${size})(h)))`;
    return `x, z = keras.Input(x_train.shape[1:]), keras.Input((${latent},))
h = layers.Dense(${hidden}, "relu")(layers.Flatten()(x))
encoder = keras.Model(x, [layers.Dense(${latent})(h), layers.Dense(${latent})(h)])
h = layers.Dense(${hidden}, "relu")(z)
${last}`;
  }

  const DRAWS = {
    variance: "self.sampling((mean, 2 * log_var))  # σ² where σ belongs",
    noiseless: "mean if training else self.sampling((mean, log_var))",
  };

  const drawn = (broken) => `    def call(self, x, training=False):
        mean, log_var = self.encoder(x)
        z = ${DRAWS[broken]}
        logits = self.decoder(z)
        return {"mean": mean, "log_var": log_var, "z": z, "logits": logits}`;

  function loss({ warmup, freeBits, broken }, size) {
    const rising = warmup ? `        step = ops.cast(self.optimizer.iterations, "float32")
        beta *= ops.minimum(1, step / ${warmup})\n` : "";
    const rate = broken === "unused" ? "mean**2 + ops.exp(log_var) - 1" : "mean**2 + ops.exp(log_var) - 1 - log_var";
    return `    def compute_loss(self, x, y=None, y_pred=None, *others, **named):
        super().compute_loss(x, y, y_pred)  # records both terms as they are
        reconstruction = ops.mean(self.reconstruction_term(x, y_pred["logits"]))
        mean, log_var = y_pred["mean"], y_pred["log_var"]
        kl = ops.mean(0.5 * (${rate}), axis=0)  # of each
${freeBits ? `        kl = ops.maximum(${freeBits}, kl)\n` : ""}        beta = self.beta
${rising}        return reconstruction${broken === "mean" ? ` / ${size}` : ""} ${broken === "sign" ? "-" : "+"} beta * ops.sum(kl)`;
  }

  /** Return the program for the settings; `epoch` is how far the lab has come. */
  function code(settings, epoch) {
    const { view, seed, beta, rate, batch, warmup, freeBits, broken, data: name } = settings;
    const shape = view === "line" ? [name === "line" ? 1 : 2, 1] : name === "8x8" ? [8, 8] : [28, 28];
    const otherLoss = warmup || freeBits || ["sign", "mean", "unused"].includes(broken);
    const methods = [...(DRAWS[broken] ? [drawn(broken)] : []), ...(otherLoss ? [loss(settings, shape[0] * shape[1])] : [])];
    const own = methods.length ? `class VAE(models.VAE):\n${methods.join("\n\n")}\n\n\n` : "";
    const options = [...(view === "line" ? ['likelihood="gaussian"'] : []), `beta=${beta}`].join(", ");
    const modules = ["evaluation", "models", ...(view === "digits" && name === "28x28" ? ["data"] : [])].sort().join(", ");
    return `from vae_utils import ${modules}
${view === "digits" ? "from vae_utils.page import lab\n" : ""}
import keras
${view === "line" ? "import numpy as np\n" : ""}from keras import layers${own || broken === "sigmoid" ? ", ops" : ""}

keras.utils.set_random_seed(${seed})
${data(settings)}

${networks(settings, shape)}


${own}vae = ${own ? "" : "models."}VAE(encoder, decoder, ${options})
vae.compile(keras.optimizers.Adam(${rate}))
vae.fit(x_train, batch_size=${batch}, epochs=${Math.max(Math.ceil(epoch), 1)}, verbose=2)

reconstruction, kl = evaluation.elbo_terms(vae, held_out)
print(f"held out: reconstruction {reconstruction.mean():.2f}, KL {kl.mean():.2f}")
print(f"−ELBO {(reconstruction + kl).mean():.2f} nats")
`.replace(/\n\n\n\n+/g, "\n\n\n");
  }

  return { EPOCHS, code };
})();
