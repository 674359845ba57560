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

  const activeUnits = ({ activity }) => activity.filter((value) => value > 0.01).length;

  const TASKS = [];

  return { BROKEN: CARDS, DATA, TASKS, activeUnits };
})();
