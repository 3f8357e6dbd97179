"""``tiny-captioner``: the attributes of a face in words, from its pixels alone.

Training (``train``) is a build-time tool; ``net`` loads the weights.
"""

TRAINER_VERSION = "1"
