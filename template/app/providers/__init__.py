"""Who answers: one interface, one thin adapter per provider."""
