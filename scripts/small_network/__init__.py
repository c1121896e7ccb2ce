"""How the small network is trained: pasted videos and the whole recipe."""
