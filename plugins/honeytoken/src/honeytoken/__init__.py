"""Validates the scopes of honeytokens: credentials that are good for nothing but being found."""
