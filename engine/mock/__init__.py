"""The mock provider: a server that answers like the real ones, misbehaves on request, and logs what arrived."""
