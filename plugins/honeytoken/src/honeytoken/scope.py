"""What a scope of kind honeytoken may be."""

KIND = "honeytoken"
NEEDED = ("name", "purpose")
MOST = 256  # characters of each


class Refused(Exception):
    """Its text reaches the caller."""


def validate(kind, params):
    """Whoever finds the token reported must know from these two what it was laid out for."""
    if kind != KIND:
        raise Refused("this plugin validates honeytokens")
    for name in NEEDED:
        value = params.get(name)
        if not isinstance(value, str) or not value.strip():
            raise Refused(f"params.{name} must be a text that is not blank")
        if len(value) > MOST:
            raise Refused(f"params.{name} must have at most {MOST} characters")


def narrow(params, ttl, max_params, max_ttl):
    """The scope as it is, within what policy allows; a bound is one value or a list of them."""
    narrowed = dict(params)
    for name, limit in max_params.items():
        asked = params.get(name, limit)
        if asked != limit and not (isinstance(limit, list) and asked in limit):
            raise Refused(f"policy does not allow this {name}")
        narrowed[name] = asked
    return narrowed, min(ttl, max_ttl)
