"""The guide for extensions of the attestation platform, with changed imports and nothing else."""
