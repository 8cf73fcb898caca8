"""The limiter: one process that hands out the quota's permits, and the client that workers ask it through."""
