"use strict";
/* What the lab says about its data, its broken settings (in step with the cards of chapter 9) and its
 * tasks, each with an answer that a number on the page confirms.
 */
globalThis.LatentLessons = (() => {
  const DATA = { moons: "two moons", ring: "a ring", bent: "a bent line", mixture: "a mixture of three", line: "two bumps on a line",
                 own: "your own points", "8x8": "digits, 8 × 8", "28x28": "digits, 28 × 28" };

  const lossAndHonest = ({ train }, readable) => `loss ${readable(train.loss, 2)}, honest −ELBO ${readable(train.negativeElbo)}`;
  const CARDS = {
    none: {
      name: "nothing",
      text: "Choose a mistake, watch what it does, and come back. The table keeps both: the loss that is being minimized, and the honest terms.",
    },
    sign: {
      name: "KL with the wrong sign",
      text: "Symptom: within a few steps the loss falls below zero, then on by orders of magnitude, in some runs until the numbers overflow. Cause: the negative of the KL is added, which rewards the encoder for running away from the prior. Way back: the KL is never negative; add ½ Σ (μ² + σ² − 1 − log σ²). Card 1 of chapter 9.",
      symptom: ({ train }, readable) => `loss ${readable(train.loss)}, honest KL ${readable(train.kl)}`,
    },
    mean: {
      name: "mean over pixels",
      text: "Symptom: the loss looks tiny, the KL goes to zero, every reconstruction is the same grey ghost. Cause: the reconstruction term is averaged over the pixels, so that the KL weighs as many times too much as there are pixels. Way back: sum over pixels and latent dimensions, average over images only. Card 2 of chapter 9.",
      symptom: ({ train }, readable) => `loss ${readable(train.loss, 2)}, honest KL ${readable(train.kl, 3)}`,
    },
    variance: {
      name: "σ² taken for σ",
      text: "Symptom: none to be seen in the pictures. Cause: the noise is scaled with exp(log σ²), without the ½, while the KL is charged for σ, so the two speak of different distributions. Way back: σ = exp(½ log σ²), and test the noise, as only samples show this. Card 4 of chapter 9.",
      symptom: lossAndHonest,
    },
    unused: {
      name: "log σ² left out of the KL",
      text: "Symptom: the loss is too good, and the honest KL grows without end. Cause: without − log σ² the KL no longer forbids a σ of zero; the encoder turns its noise off, and does not pay for it. Way back: all four parts of ½ (μ² + σ² − 1 − log σ²). A relative of cards 1 and 4 of chapter 9.",
      symptom: ({ train }, readable) => `loss ${readable(train.loss, 2)}, honest KL ${readable(train.kl)}`,
    },
    noiseless: {
      name: "no noise: z = μ",
      text: "Symptom: the loss falls below that of a healthy run, while the honest −ELBO, which draws z from q(z|x), is worse. Cause: the decoder sees the mean only, so nobody learns what σ should be. Way back: z = μ + σ ε, with new ε for each image and each step. The test of the noise in chapter 9 finds it.",
      symptom: lossAndHonest,
    },
    sigmoid: {
      name: "sigmoid before the loss",
      text: "Symptom: the loss gets stuck, the pictures are grey on grey, paper is never white. Cause: the decoder ends in a sigmoid and the loss applies another, so a pixel can only take probabilities from 0.5 to 0.73. Way back: the decoder returns logits, and the sigmoid stands in one place. Card 3 of chapter 9.",
      symptom: ({ heldOut }, readable) => `held-out reconstruction ${readable(heldOut.reconstruction)}`,
    },
    scaled: {
      name: "pixels scaled twice",
      text: "Symptom: the best loss that you have ever had, and white pages. Cause: the pixels are divided by their white level a second time; the images are nearly white, and white is cheap. Way back: scale once, where the images enter, and look at the minimum and the maximum there. Card 7 of chapter 9.",
      symptom: lossAndHonest,
    },
  };

  /** `settings` differ from the view's defaults; `number` is what the answer is checked against. */
  const TASKS = [
    {
      title: "A bound that closes",
      settings: { view: "line", data: "bent", until: 3000 },
      question: "The data lie along a bent line, and the decoder is a curve. Exact log p(x) is shown beside the ELBO. Before you run: how much of the gap between them will be left at step 3,000, next to nothing, half a nat, or more than a nat?",
      where: "The gap in the table",
      number: ({ truth }, readable) => `${readable(truth.gap, 3)} nats`,
      answer: "Next to nothing: 0.03 to 0.1 nats in our runs. Along a curve with two ends the exact posterior of nearly every point is one narrow bump, which a Gaussian fits and an encoder can learn.",
    },
    {
      title: "A ring has no ends",
      settings: { view: "line", data: "ring", split: "yes", at: "-1.5,0", until: 3000 },
      question: "The decoder’s curve has two ends, and a ring has none. Somewhere the curve must be cut. Which part of the gap will be the greater one at step 3,000: what no Gaussian could do, or what this encoder misses?",
      where: "Two lines of the table: no Gaussian fits, the encoder misses",
      number: ({ truth }, readable) => `${readable(truth.family, 3)} and ${readable(truth.encoder, 3)} nats`,
      answer: "What the encoder misses: 0.3 to 0.7 nats, against 0.04 to 0.06. Walk with the point across the cut: the right z jumps from one end of the prior to the other, and an encoder is a continuous function that cannot jump. A Gaussian for each point would do, if only it were chosen point by point.",
    },
    {
      title: "A gap that no encoder closes",
      settings: { view: "line", data: "line", split: "yes", at: "0", until: 3000 },
      question: "Now x is a single number, from two bumps of different width. The gap is small. Whose fault is the greater part of it at step 3,000, the Gaussian’s or the encoder’s?",
      where: "Two lines of the table: no Gaussian fits, the encoder misses",
      number: ({ truth }, readable) => `${readable(truth.family, 3)} and ${readable(truth.encoder, 3)} nats`,
      answer: "The Gaussian’s: 0.05 to 0.06 nats, against 0.01 to 0.03. Between the bumps the exact posterior is lopsided. More hidden units help the encoder; only another family of q would help here.",
    },
    {
      title: "Twenty times the price",
      settings: { view: "digits" },
      question: "Run for ten seconds, then turn β from 1 to 20 while it learns. What becomes of the KL within some seconds: does it halve, fall to a twentieth, or vanish? And of the decoded plane?",
      where: "KL of the held-out digits",
      number: ({ heldOut }, readable) => `${readable(heldOut.kl, 3)} nats`,
      answer: "It vanishes: from about 2 nats to below 0.05. A nat of KL has to save twenty nats of reconstruction, and none does. All points fall onto the prior’s mean, and every image of the plane becomes the mean digit. This is posterior collapse.",
    },
    {
      title: "Eight times the room",
      settings: { view: "digits", latent: 16, until: 1500 },
      question: "With two latent dimensions the KL reaches about 2.2 nats at step 1,500. Here are sixteen. Will it be eight times as much, three times, or hardly more?",
      where: "KL of the held-out digits",
      number: ({ heldOut }, readable) => `${readable(heldOut.kl)} nats`,
      answer: "Hardly more: about 3 nats, in four or five tall bars. A dimension is used where it saves more reconstruction than it costs; the others stay at the prior and cost nothing.",
    },
    {
      title: "A mean for a sum",
      settings: { view: "digits", broken: "mean", until: 600 },
      question: "The reconstruction term is averaged over the 64 pixels, and the KL is still a sum. Which β would do the same to an honest loss? What will the KL be at step 600?",
      where: "KL of the held-out digits",
      number: ({ heldOut }, readable) => `${readable(heldOut.kl, 3)} nats`,
      answer: "β = 64, and a KL of zero. The loss of 0.42 looks splendid and is in another unit: nats per pixel.",
    },
    {
      title: "Without noise",
      settings: { view: "digits", broken: "noiseless", until: 1000 },
      question: "In training, z = μ. The loss will end below that of a healthy run, 25 nats. The honest −ELBO draws z from q(z|x), as it should. Will it be a little worse at step 1,000, or twice as bad?",
      where: "−ELBO of the held-out digits",
      number: ({ heldOut }, readable) => `${readable(heldOut.negativeElbo)} nats`,
      answer: "Twice as bad: about 55 nats, against a loss of 22. The KL asks for σ = 1, nobody tells the encoder what noise costs, and the decoder has never met any.",
    },
  ];

  return { BROKEN: CARDS, DATA, TASKS };
})();
