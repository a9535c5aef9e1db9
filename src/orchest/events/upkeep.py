"""Who answers for the platform's events, and where each of them comes from."""

from clarion.upkeep import Never, Upkeep

ALWAYS = Never("Every release asks anew which parts of the platform are used, and which of them fail.")


def kept(*triggers: str) -> Upkeep:
    """The platform team's word for a type that has been sent since the first version, from these files."""
    return Upkeep(owner="platform team", since="0.1", expires=ALWAYS, triggers=triggers)
