"""Who asks: principals, users and the chosen way to prove who one is."""
