"""The fair board: palate's methods and every rival a practitioner would run, on a real model."""
