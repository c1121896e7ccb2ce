"""How the small network is trained: pasted videos, synthetic clips and the whole recipe."""
