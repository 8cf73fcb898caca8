"""What our processes say to each other, and how it travels: ZeroMQ sockets, msgpack frames."""
