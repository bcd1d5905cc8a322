"""The bus of events under the names of the attestation platform."""
