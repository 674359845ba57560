"""What Part IV builds: one scale for what came after the VAE, and the models on it."""
