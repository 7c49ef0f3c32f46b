//! The encrypted log, route state, anchors and ward.db: everything that must survive. It keeps; it decides nothing.
