"""Pure decisions: no clock, socket, file, randomness or logging; ``now`` and a seeded RNG are arguments."""
