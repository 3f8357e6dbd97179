"""The latent diffusion engine: folders, loading, text, guides, the denoising loop."""
