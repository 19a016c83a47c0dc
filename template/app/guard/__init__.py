"""What every generation passes before and after a provider; `pipeline` is the path."""
