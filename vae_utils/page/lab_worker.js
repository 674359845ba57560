"use strict";
/* The lab's worker: owns the model, its data and the optimizer, and answers with snapshots. What the
 * messages hold: `start`, `change`, `run`, `slow`, `pause`, `steps`, `look` come in; `snapshot`,
 * `diverged`, `error` go out.
 */
(() => {
  const { Random, Training, VAE } = LatentLearning;
  const CHUNK = 15;  // milliseconds of steps at a go
  const BETWEEN = 100, SHARE = 4;  // between snapshots: milliseconds, and multiples of what one takes
  const SIDE_OF_PLANE = 12, SAMPLES = 16, RECONSTRUCTIONS = 10, FASTEST = 30, MOST_STEPS = 100000;
  const digits = {};  // by the name of the data set, as they came
  const lab = { mode: "paused", turn: 0, look: { at: null, dimensions: [0, 1], split: false } };
  const memory = LatentProducts.products();
  const soon = new MessageChannel();  // unlike a timer it does not wait, and lets messages through

  // A model and what it is judged on

  function start({ settings: given, digits: news }) {
    const settings = LatentSettings.check(given), line = settings.view === "line";
    if (news) digits[settings.data] = news;
    const set = line ? { ...LatentData.points(settings), white: 1 } : unfold(digits[settings.data], settings.data);
    const likelihood = line ? "gaussian" : "bernoulli";
    const { hidden, latent, seed } = settings;
    stop();
    memory.clear();
    const model = new VAE({ inputs: set.dim, hidden, latent, likelihood }, seed, memory);
    const noise = new Random(seed, "evaluation").normals(new Float32Array(set.heldOut.length / set.dim * latent));
    const samples = new Random(seed, "samples").normals(new Float32Array(SAMPLES * latent));
    const training = new Training(model, set.train, set.white, settings);
    const trainPart = Float32Array.from(set.train.subarray(0, set.heldOut.length), (value) => value / set.white);
    Object.assign(lab, { settings, set, model, training, noise, samples, trainPart, seconds: 0, rate: 0,
                         fresh: true, losses: [] });
    Object.assign(lab.look, { at: null, dimensions: [0, Math.min(1, latent - 1)] });
    send();
  }

  function unfold(images, name) {
    if (!images) throw new Error(`The images of ${name} have not been sent: start with digits.`);
    const { levels, white, train } = images, dim = name === "8x8" ? 64 : 784;
    return { dim, white, train: levels.subarray(0, train * dim),
             heldOut: Float32Array.from(levels.subarray(train * dim), (level) => level / white) };
  }

  function change({ settings: news }) {
    const fixed = Object.keys(news).filter((name) => !LatentSettings.LIVE.includes(name));
    if (fixed.length) throw new Error(`Only ${LatentSettings.LIVE.join(", ")} can change while a model lives: `
      + `start again. Received: ${fixed.join(", ")}`);
    lab.settings = lab.training.settings = LatentSettings.check({ ...lab.settings, ...news });
    lab.losses = [];
  }

  function look({ type: _, ...news }) {
    const merged = { ...lab.look, ...news }, { at, dimensions } = merged, { settings, set } = lab;
    const size = settings.view === "line" ? set.dim : 0;
    if (at && !(at.length === size && Array.from(at).every(Number.isFinite)))
      throw new RangeError(`at must hold ${size} numbers, in the line view only. Received: at=${at}`);
    if (!dimensions.every((d) => Number.isInteger(d) && d >= 0 && d < settings.latent))
      throw new RangeError(`dimensions must lie from 0 to ${settings.latent - 1}. Received: dimensions=${dimensions}`);
    lab.look = merged;
    if (lab.mode === "paused") send();
  }

  // What is told

  function snapshot() {
    const { training, model, set, noise, settings, losses, trainPart } = lab, { rules } = training;
    const train = model.evaluate(trainPart, noise.subarray(0, trainPart.length / set.dim * model.latent), rules);
    const heldOut = model.evaluate(set.heldOut, noise, rules), { means, sigmas, klPerDimension } = heldOut;
    const terms = ({ loss, reconstruction, kl, negativeElbo }) => ({ loss, reconstruction, kl, negativeElbo });
    const told = {
      type: "snapshot", view: settings.view, step: training.step, epoch: training.seen / training.count,
      seconds: lab.seconds, running: lab.mode !== "paused", stepsPerSecond: lab.rate, beta: training.lastBeta,
      train: terms(train), heldOut: terms(heldOut), means, sigmas,
      klPerDimension: Float32Array.from(klPerDimension), activity: activity(means, model.latent),
      ...(settings.view === "line" ? line(heldOut) : { pictures: pictures(means) }),
    };
    if (losses.length) told.train.loss = losses.reduce((sum, loss) => sum + loss) / losses.length;
    if (told.truth) {  // exact, so without the noise of a sample
      const negativeElbo = -told.truth.elbo;
      Object.assign(told.heldOut, { negativeElbo, reconstruction: negativeElbo - heldOut.kl });
    }
    if (lab.fresh) told.data = described(set, settings);
    lab.fresh = false;
    return told;
  }

  const described = ({ dim, train, heldOut }, { view }) => (view === "line"
    ? { dim, train, heldOut } : { train: train.length / dim, heldOut: heldOut.length / dim });

  function line({ means, sigmas }) {
    const { model, set, look: { at, split }, training } = lab, truth = new LatentTruth.Truth(model);
    const told = { truth: truth.judge(set.heldOut, means, sigmas, split), look: null };
    if (at) {
      const x = Float32Array.from(at), q = model.evaluate(x, new Float32Array(1), training.rules);
      told.look = truth.look(x, q.means[0], q.sigmas[0], split);
    }
    return told;
  }

  /** Variance of each mean over the data: above 0.01 a dimension counts as active (Burda et al. 2016). */
  function activity(means, latent) {
    const rows = means.length / latent;
    return Float32Array.from({ length: latent }, (_, d) => {
      let sum = 0, squares = 0;
      for (let i = d; i < means.length; i += latent) {
        sum += means[i];
        squares += means[i] ** 2;
      }
      return squares / rows - (sum / rows) ** 2;
    });
  }

  function pictures(means) {
    const { model, samples, settings, look: { dimensions: [a, b] } } = lab, { latent } = settings;
    const ink = (z) => Uint8Array.from(model.decoded(z, settings.broken),
                                       (logit) => Math.round(255 * LatentNetworks.sigmoid(logit)));
    const plane = new Float32Array(SIDE_OF_PLANE ** 2 * latent);
    for (let r = 0; r < SIDE_OF_PLANE; r++) for (let c = 0; c < SIDE_OF_PLANE; c++) {
      const from = (r * SIDE_OF_PLANE + c) * latent;
      plane[from + b] = planeZ[SIDE_OF_PLANE - 1 - r];
      plane[from + a] = planeZ[c];
    }
    return { side: Math.sqrt(model.inputs), plane: ink(plane), planeZ, samples: ink(samples),
             reconstructions: ink(means.slice(0, RECONSTRUCTIONS * latent)) };
  }

  /** The prior's quantiles in the middle of equal shares, from the sum of its density. */
  function quantiles(count) {
    const found = new Float32Array(count), step = 1e-4;
    for (let z = -6, share = 0, next = 0; next < count; z += step) {
      share += step * Math.exp(-((z + step / 2) ** 2) / 2) / Math.sqrt(2 * Math.PI);
      if (share >= (next + 0.5) / count) found[next++] = z + step;
    }
    return found;
  }
  const planeZ = quantiles(SIDE_OF_PLANE);

  function send() {
    const begin = performance.now();
    postMessage(snapshot());
    lab.cost = performance.now() - begin;
    lab.sent = performance.now();
  }

  // How it runs

  /** Take one step, and keep the losses of an epoch; tell and return false where one is not finite. */
  function step() {
    const { training, losses, settings: { batch } } = lab;
    const loss = training.next();
    losses.push(loss);
    if (losses.length > Math.ceil(training.count / batch)) losses.shift();
    if (Number.isFinite(loss)) return true;
    stop();
    postMessage({ type: "diverged", step: training.step });
    return false;
  }

  /** Run steps for some milliseconds, tell if it is time, and go on after the messages that wait. */
  function go(turn) {
    if (turn !== lab.turn) return;
    const begin = performance.now(), before = lab.training.step;
    do if (!step()) return;
    while (performance.now() - begin < CHUNK && lab.training.step < lab.until);
    const now = performance.now(), speed = 1000 * (lab.training.step - before) / (now - begin);
    lab.rate = lab.rate ? lab.rate + 0.1 * (speed - lab.rate) : speed;
    const done = lab.training.step >= lab.until;
    if (done) stop();
    if (done || now - lab.sent > Math.max(BETWEEN, SHARE * lab.cost)) send();
    lab.seconds += (performance.now() - begin) / 1000;
    if (!done) soon.port2.postMessage(turn);
  }
  soon.port1.onmessage = ({ data: turn }) => go(turn);

  function run(until) {
    stop();
    Object.assign(lab, { mode: "full", until });
    go(lab.turn);
  }

  function goSlowly(turn, wait) {
    if (turn !== lab.turn || !step()) return;
    lab.seconds += wait / 1000;
    send();
    setTimeout(goSlowly, wait, turn, wait);
  }

  function stop() {
    lab.mode = "paused";
    lab.turn += 1;
  }

  const whole = (name, value, most) => {
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    throw new RangeError(`${name} must be a whole number from 1 to ${most}. Received: ${name}=${value}`);
  };

  const HANDLERS = {
    start, change, look,
    run: () => run(Infinity),
    slow({ stepsPerSecond }) {
      const wait = 1000 / whole("stepsPerSecond", stepsPerSecond, FASTEST);
      stop();
      Object.assign(lab, { mode: "slow", rate: stepsPerSecond });
      goSlowly(lab.turn, wait);
    },
    pause() {
      stop();
      send();
    },
    steps({ count }) {
      run(lab.training.step + whole("count", count, MOST_STEPS));
    },
  };

  globalThis.onmessage = ({ data: message }) => {
    try {
      const handle = HANDLERS[message.type];
      const received = `Received: type=${message.type}`;
      if (!handle) throw new Error(`type must be one of ${Object.keys(HANDLERS).join(", ")}. ${received}`);
      if (handle !== start && !lab.model) throw new Error(`There is no model yet: start one first. ${received}`);
      handle(message);
    } catch (error) {
      postMessage({ type: "error", message: error.message });
    }
  };
})();
