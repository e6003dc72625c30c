//! TLS and the engine, over real sockets.
