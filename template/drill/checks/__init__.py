"""The looks at promises, by what they are about."""
