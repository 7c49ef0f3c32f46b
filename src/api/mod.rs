//! The small HTTP/JSON router each half serves on its own unix socket, and the client the command line uses.
