//! Wires the rooms, supervises them, shuts them down. It decides nothing else.
