"""``tiny-geometry``: depth, outline, landmarks and pose of a face, from its pixels alone.

Training (``train``) is a build-time tool; ``privbench_plugins.geometry`` loads the weights.
"""

TRAINER_VERSION = "1"
