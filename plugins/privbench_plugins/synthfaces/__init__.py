"""`synthfaces`: rendered heads with identity labels, made from the CC0 MakeHuman assets.

These modules are a build-time tool. Reading the shipped data needs none of them, nor the
packages of the extra `privbench[render]` that they import.
"""

RENDERER_VERSION = "1"
SCHEMA_VERSION = 1
