"""Everything around the network.

The ground floor, which model/ and dataset/ import: errors, files, numbers, packages, device, distributed,
parallel, progress. Above model/ and dataset/: evaluation/ and training/.
"""
