"""Everything around the network.

The ground floor, which model/ and dataset/ stand on: errors, files, numbers, device, distributed, parallel. Above
model/ and dataset/: evaluation/ and training/.
"""
