"""The contract's messages and service."""
