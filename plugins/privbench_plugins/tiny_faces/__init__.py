"""``tiny-faces``: the embedded latent diffusion model and its canny ControlNet.

Training (``train``) and measurement (``evaluate``) are build-time tools; the shipped
folders load with the ordinary diffusers classes and need none of these modules. Nothing
here imports ``privbench``, so anyone can rerun the training alone.
"""

TRAINER_VERSION = "1"
