"""The questions of the gate, as data: abilities, harmful prompts and harmless look-alikes."""
