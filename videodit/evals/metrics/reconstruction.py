"""PSNR of the autoencoder's reconstruction of real clips."""

import numpy as np

from videodit.evals.evaluator import EVALUATORS, Evaluation, Evaluator, Samples
from videodit.evals.html_report import KeyFigure
from videodit.evals.pixel import psnr

BATCH = 32


@EVALUATORS.register("reconstruction")
class Reconstruction(Evaluator):
    """The mean over real clips of the PSNR of the autoencoder's reconstruction, in dB, pixels as bytes."""

    def evaluate(self, samples: Samples) -> Evaluation:
        autoencoder = samples.pipeline.autoencoder
        psnrs: list[float] = []
        for start in range(0, len(samples.real), BATCH):
            real = np.stack(samples.real[start : start + BATCH])
            psnrs.extend(psnr(real, autoencoder.decode(autoencoder.encode(real)), 255.0))
        mean = float(np.mean(psnrs))
        figure = KeyFigure("VAE reconstruction of held-out clips", mean, "dB", at_least=28.0)
        return Evaluation(scores={"vae_psnr": mean}, figures=[figure])
