"""Fine-tuning a latent diffusion model, and what can be asked of the result."""
