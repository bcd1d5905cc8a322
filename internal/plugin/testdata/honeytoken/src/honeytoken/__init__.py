"""A plugin that vends honeytokens: tokens that are good for nothing but being found."""
